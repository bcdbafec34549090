"""World: what the ranks say to each other, in real processes."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.ranks import on_ranks
from trainer.distributed import Agreement, FailedElsewhere, World


def fail_on_rank_1(world: World) -> None:
    with world.together():
        if world.rank == 1:
            raise OSError("the shard of rank 1 is gone")


def talks(world: World) -> dict[str, object]:
    with pytest.raises(FailedElsewhere if world.rank != 1 else OSError, match="the shard of rank 1"):
        fail_on_rank_1(world)
    agreed, left_at = Agreement(world), None
    for step in range(10):
        if agreed(flag=world.rank == 2 and step >= 4):
            left_at = step
            break
    agreed.close()
    return {
        "sum": world.total(torch.tensor([world.rank + 1.0])),
        "everyone": world.everyones({"rank": world.rank}),
        "in order": world.in_order(torch.full((2,), float(world.rank))),
        "left at": left_at,
    }


def test_ranks_add_up_share_errors_and_leave_together():
    for found in on_ranks(3, talks):
        assert found["sum"].tolist() == [6.0]
        assert found["everyone"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert found["in order"].tolist() == [0, 0, 1, 1, 2, 2]
        assert found["left at"] == 5, "one step after rank 2 asked to leave"


def test_a_single_process_talks_to_itself():
    world = World()
    assert world.everyones(3) == [3]
    assert float(world.total(torch.ones(()))) == 1
    assert Agreement(world)(True)
    assert not Agreement(world)(False)
    with pytest.raises(ValueError, match="mine"), world.together():
        raise ValueError("mine")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of 2 is no rank"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number, got 'two'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR, where they meet, is not set"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "2 processes were started, but MASTER_ADDR"),
    ],
)
def test_what_is_no_world_is_refused_by_name(environment, message, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        World.from_environment()


def test_a_rank_that_does_not_come_is_reported_within_the_patience(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    with pytest.raises(OSError, match=r"rank 0 of 2 could not meet the others .* within 1 s"):  # noqa: SIM117
        with World(0, 2).joined(1.0):
            pass
