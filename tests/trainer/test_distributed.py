"""World: what the ranks say to each other, in real processes."""

from __future__ import annotations

import re
import time

import pytest
import torch

from tests.trainer.ranks import on_ranks, started
from trainer.distributed import Agreement, FailedElsewhere, World, meeting
from trainer.versions import check_alike, versions


def fail_on_rank_1(world: World) -> None:
    with world.together():
        if world.rank == 1:
            raise OSError("the shard of rank 1 is gone")


def talks(world: World) -> dict[str, object]:
    with pytest.raises(FailedElsewhere if world.rank != 1 else OSError, match="the shard of rank 1"):
        fail_on_rank_1(world)
    return {
        "sum": world.total(torch.tensor([world.rank + 1.0])),
        "everyone": world.everyones({"rank": world.rank}),
        "in order": world.in_order(torch.full((2,), float(world.rank))),
        "left at": [left_at(world, asked, 10) for asked in (4, 8, 9, 10)],
        "versions": disagreement(world),
    }


def left_at(world: World, asked: int, last: int) -> int:
    """The step at which this rank leaves: the last, or where it is agreed, as rank 2 asks from `asked` on."""
    with Agreement(world) as agreed:
        for step in range(last + 1):
            if agreed(flag=world.rank == 2 and step >= asked) or step == last:
                break
    return step


def disagreement(world: World) -> str:
    """What is said of a run whose second rank has another config."""
    check_alike(world, {"torch": "2.13.0", "run.seed": 0})
    with pytest.raises(ValueError) as caught:
        check_alike(world, {"torch": "2.13.0", "run.seed": 5 if world.rank == 1 else 0, "z": world.rank})
    return str(caught.value)


def test_ranks_add_up_share_errors_and_leave_together():
    for found in on_ranks(3, talks):
        assert found["sum"].tolist() == [6.0]
        assert found["everyone"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert found["in order"].tolist() == [0, 0, 1, 1, 2, 2]
        assert found["left at"] == [5, 9, 10, 10], "one step after rank 2 asked to leave, or at the end"
        assert re.match(
            r"the ranks do not agree in run.seed: rank 0 on \S+ has 0, rank 1 on \S+ has 5;", found["versions"]
        )


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


@pytest.mark.parametrize("name", ["LOCAL_RANK", "SLURM_LOCALID"])
def test_more_processes_than_accelerators_are_refused_with_both_numbers(name, monkeypatch):
    for each in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv(name, "3")
    assert World.from_environment().local_rank == 3
    monkeypatch.setenv(name, "4")
    with pytest.raises(ValueError, match="local rank 4 has no accelerator: this process sees 4"):
        World.from_environment()


def test_a_rank_that_does_not_come_is_reported_within_the_patience(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    with pytest.raises(OSError, match=r"rank 0 of 2 could not meet the others .* within 1 s"):  # noqa: SIM117
        with World(0, 2).joined(1.0):
            pass


def test_versions_say_what_computes():
    found = versions()
    assert found.keys() == {"python", "torch", "deepspeed", "quasistatic"}
    assert found["torch"].startswith("2.")
    assert found == versions()


def connecting_for_ever(world: World) -> None:
    with meeting(patience=0.1):
        time.sleep(60)


def test_ranks_that_never_connect_are_ended():
    (process,), _ = started(1, connecting_for_ever)
    process.join(20)
    assert process.exitcode == 1


def test_after_ranks_have_met_nothing_ends_them():
    with meeting(patience=0.02):
        pass
    time.sleep(0.1)  # longer than it would have waited: still here
