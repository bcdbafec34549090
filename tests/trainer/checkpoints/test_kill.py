"""kill -9 of ranks that are saving: whatever the moment, the latest checkpoint is a whole one."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import torch

from tests.trainer.checkpoints import cuts
from tests.trainer.ranks import free_port
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.checkpoints.contents import everything_in
from trainer.checkpoints.manifest import Manifest
from trainer.checkpoints.verification import faults
from trainer.distributed import World

KILLS = 6


def save_without_end(rank: int, port: int, directory: Path) -> None:
    """What each of two ranks runs: resumes, then saves as fast as it can."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World(rank, 2, rank)
    with world.joined(30):
        checkpoints = Checkpoints(directory, keep=2, world=world)
        state = checkpoints.restore(cuts.state("rows", rank, 2, seed=1))
        with checkpoints.telling(lambda line: None):
            while True:
                for shard in everything_in(state).values():
                    shard.tensor.fill_(state.images + 1)
                state.images += 1
                checkpoints.save(state)


@pytest.mark.slow
def test_a_save_that_is_killed_leaves_the_latest_whole(tmp_path):
    chance, context = random.Random(0), multiprocessing.get_context("spawn")
    latest = torn = 0
    for number in range(KILLS):
        port = free_port()
        ranks = [
            context.Process(target=save_without_end, args=(rank, port, tmp_path / "run"), daemon=True)
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        wait_beyond(Checkpoints(tmp_path / "run"), latest)
        time.sleep(chance.uniform(0, 0.3))
        for process in chance.sample(ranks, 1 + number % 2):  # one alone leaves the other with half a save
            process.kill()
        for process in ranks:
            process.join()
        checkpoints = Checkpoints(tmp_path / "run", keep=2)
        torn += len(list(checkpoints.directory.glob("*.partial")))
        manifest = Manifest.read(checkpoints.latest())
        assert faults(manifest) == []
        assert manifest.images > latest
        latest = manifest.images
        state = cuts.state("rows", 0, 1, seed=1)
        checkpoints.restore(state)
        held = torch.cat([shard.tensor for shard in everything_in(state).values()]).unique()
        assert held.tolist() == [latest], "a mixture of two saves"
    assert torn, "no kill landed within a save"


def wait_beyond(checkpoints: Checkpoints, images: int) -> None:
    """Until there is a newer checkpoint."""
    end = time.monotonic() + 120
    while not any(int(path.name) > images for path in checkpoints.all()):
        assert time.monotonic() < end
        time.sleep(0.01)
