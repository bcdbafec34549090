"""A run that is killed, stopped or interrupted ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.runs import flat
from tests.launch.doors import SMALL, checkpoint_bytes, opened, start


def arguments(digits: Path, directory: Path, *more: str) -> list[str]:
    return [*SMALL, f"data.shards={digits}/train", f"run.directory={directory}", *more]


def wait_for_checkpoints(directory: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(list((directory / "checkpoints").glob("[0-9]*"))) < count:
        assert time.monotonic() < end, f"{directory} has no {count} checkpoints after a minute"
        time.sleep(0.01)


def losses(directory: Path) -> dict[int, float]:
    events = EventAccumulator(str(directory)).Reload()
    return {event.step: event.value for event in events.Scalars("loss")}


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_points_it_ends_with_the_same_bits(digits, finished, tmp_path, seed):
    """kill -9 after a random wait past the first, third and fourth checkpoint, which lands in a step or a save."""
    chance = random.Random(seed)
    for checkpoints in (1, 3, 4):
        process = start("train", *arguments(digits, tmp_path))
        wait_for_checkpoints(tmp_path, checkpoints)
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        process.communicate()
    opened("train", *arguments(digits, tmp_path))
    assert checkpoint_bytes(tmp_path) == checkpoint_bytes(finished)
    assert losses(tmp_path).keys() == losses(finished).keys()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_at_the_step_boundary_and_the_run_resumes(digits, finished, tmp_path, number):
    process = start("train", *arguments(digits, tmp_path))
    wait_for_checkpoints(tmp_path, 1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 75, output + errors
    assert signal.Signals(number).name in output
    opened("train", *arguments(digits, tmp_path))
    assert checkpoint_bytes(tmp_path) == checkpoint_bytes(finished)


def test_a_resumed_curve_has_no_jump(digits, finished, tmp_path):
    """Stopped at a checkpoint that is a logging tick, the curve is the uninterrupted one, value for value."""
    opened("train", *arguments(digits, tmp_path, "run.images=128"))
    opened("train", *arguments(digits, tmp_path))
    assert losses(tmp_path) == losses(finished)


def test_workers_and_prefetch_change_nothing(digits, finished, tmp_path):
    opened("train", *arguments(digits, tmp_path, "data.workers=0", "data.prefetch=1"))
    assert checkpoint_bytes(tmp_path) == checkpoint_bytes(finished)


def test_a_finished_run_is_left_as_it_is(digits, tmp_path):
    opened("train", *arguments(digits, tmp_path, "run.images=64"))
    before = checkpoint_bytes(tmp_path)
    assert "finished" in opened("train", *arguments(digits, tmp_path, "run.images=64"))
    assert checkpoint_bytes(tmp_path) == before


def test_what_changes_no_sample_of_a_whole_set_is_free():
    """A run that stopped at a bad image goes on with on_error=skip."""
    old, new = {"on_error": "raise", "decoder": "fast"}, {"on_error": "skip", "decoder": "pillow"}
    assert flat({"data": old}) == flat({"data": new}) == {}
