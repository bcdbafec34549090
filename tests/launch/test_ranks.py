"""The training door under torchrun: all ranks leave at the same step or with clear errors, and none hangs."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.launch.doors import SMALL, start_on_ranks

ENGINE = "engine=ddp"


def ended(digits: Path, directory: Path, fault: str, *more: str) -> tuple[int, str]:
    """The status and the output of a run on two ranks with a fault planted (see faulty.py)."""
    arguments = [*SMALL, ENGINE, f"data.shards={digits}/train", f"run.directory={directory}", *more]
    process = start_on_ranks(2, "tests.launch.faulty", *arguments, FAULT=fault)
    output, _ = process.communicate(timeout=200)
    assert "destroy_process_group" not in output, output
    return process.returncode, output


def test_two_ranks_finish_as_one_and_bad_samples_are_skipped(digits, tmp_path):
    """Steps of 16 images: samples 35, 40 and 44 are of the third step, 40 and 44 of its second rank."""
    status, output = ended(digits, tmp_path, "poison:35,40,44", "preview.every=160", "preview.sampler.steps=5")
    assert status == 0, output
    assert output.count("finished: 320 images seen") == 1
    assert (
        "warning: 1 of the 2 steps up to image 64 skipped, 1 bad in a row; the first at image 48, where the loss "
        "was not finite on rank 0: sample 35"
    ) in output
    at = r"\(t=\d+, quarter \d\)"
    assert re.search(rf"sample 35 {at}; rank 1: sample 40 {at}, sample 44 {at}\n", output)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("skipped_steps")] == [0, 1, *[0] * 8]
    assert len(list((tmp_path / "samples").iterdir())) == 2


def test_too_many_bad_steps_in_a_row_end_every_rank_with_nothing_saved(digits, tmp_path):
    status, output = ended(digits, tmp_path, "poison:65,85,100", "run.bad_steps=2", "run.log_every=1000")
    assert status == 1
    assert "More than run.bad_steps=2 in a row end the run" in output
    assert "rank 1: stopped with the others" in output
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000064"]


def test_a_signal_to_one_rank_lets_all_leave_after_the_same_step(digits, tmp_path):
    status, output = ended(digits, tmp_path, "term:1:5")
    assert status != 0, "torchrun knows no status but failure"
    assert output.count("left on SIGTERM with everything saved") == 1
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())][-1] == "000000000096"


@pytest.mark.parametrize(
    ("fault", "own", "others"),
    [
        ("raise:0:3", "error: the disk of rank 0 is full", "rank 1 lost the others .*rank 0 ended with OSError"),
        ("die:1:3", "Signal 9", "rank 0 lost the others .*Last heard of: rank 1"),
        ("save:1:5", "Signal 9", "rank 0 lost the others .*could not save .*000000000320.*Last heard of: rank 1"),
    ],
)
def test_what_fails_on_one_rank_ends_all_at_once(digits, tmp_path, fault, own, others):
    started = time.monotonic()
    status, output = ended(digits, tmp_path, fault)
    assert status == 1
    assert own in output
    assert re.search(others, output), output
    assert time.monotonic() - started < 150, "nobody waited for the patience of 600 s"


def test_a_rank_that_stands_still_is_told_from_those_that_wait_for_it(digits, tmp_path):
    status, output = ended(digits, tmp_path, "sleep:1:3", "run.patience=6")
    assert status == 1
    assert re.search(
        r"rank 0 of 2: no step for \d+ s, after image 32\n +rank 1 on \S+: image 32, (\d+) exch", output
    )
    assert re.search(r"rank 0 lost the others .* Timed out waiting 6000ms", output)
    assert "time.sleep" in (tmp_path / "hang" / "rank-00001.txt").read_text()
    assert "run_backward" in (tmp_path / "hang" / "rank-00000.txt").read_text()
