"""The watch over a run that stands still: what it reports, and what it does not."""

from __future__ import annotations

import json
import logging
import os
import time

import pytest
import torch.distributed as dist

from data_pipeline.stream import DataConfig
from trainer.distributed import LostRank, World
from trainer.run import Run, RunConfig
from trainer.watch import Note, Watch, blamed, places, record_flights, spans


@pytest.fixture
def run(tmp_path):
    """With patience for 1.5 s without a step, and 2.7 s before the first one."""
    return Run(RunConfig(str(tmp_path), patience=3.0), DataConfig("none", resolution=8, channels=1))


def stand_still_here(seconds: float) -> None:
    time.sleep(seconds)


def test_a_run_that_stands_still_is_reported_once_with_the_place_where_it_stands(run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), Watch(run, World()) as watch:
        watch.step(96)
        stand_still_here(1.9)
        watch.step(128)
        stand_still_here(0.1)
    (record,) = caplog.records
    assert "rank 0 of 1: no step for 2 s, after image 96\n  rank 0 on" in record.getMessage()
    text = (tmp_path / "hang" / "rank-00000.txt").read_text()
    assert "stand_still_here" in text
    assert text.count("no step for") == 1
    assert "pg_status" in json.loads((tmp_path / "hang" / "rank-00000.json").read_text())


def test_steps_within_the_patience_and_a_long_first_one_are_not_reported(run, tmp_path):
    with Watch(run, World()) as watch:
        stand_still_here(1.8)
        for number in range(3):
            watch.step(number)
            stand_still_here(0.3)
    assert not (tmp_path / "hang").exists()


def test_a_broken_exchange_becomes_an_error_that_says_where(run):
    error = RuntimeError("[/third_party/gloo/x.cc:78] Timed out waiting 8000ms. This is typically caused by …")
    watch = Watch(run, World())
    watch.begin(7)
    with pytest.raises(LostRank, match=r"image 7, 0 s after it began, in .* Timed out waiting 8000ms\. "), watch:
        raise error
    with pytest.raises(RuntimeError, match=r"^another bug$"), Watch(run, World()):
        raise RuntimeError("another bug")


class Store:
    """One that fails as it is told to, and counts how often it was asked."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def set(self, key: str, value: str) -> None:
        self.asked += 1
        raise self.error

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "asked"), [(dist.DistStoreError("wait timeout"), 4), (dist.DistNetworkError("broken pipe"), 1)]
)
def test_a_store_that_is_late_is_asked_again_and_one_that_is_lost_is_not(run, error, asked):
    watch, store = Watch(run, World()), Store(error)
    watch.images, watch.board = 3, store
    for _ in range(2):
        watch._post(watch._note())
        assert watch._notes()[0].images == 3, "its own note at least"
    assert store.asked == asked


def test_a_report_that_cannot_be_written_is_told_and_the_watch_goes_on(run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), Watch(run, World()) as watch:
        (tmp_path / "hang").touch()
        for images in (96, 128):
            watch.step(images)
            stand_still_here(1.9)
    told = [
        record.getMessage() for record in caplog.records if "could not write the stacks" in record.getMessage()
    ]
    assert len(told) == 2


def note(images: int, exchanges: int, place: str = "trainer/loop.py:1 train()", failed: str = "") -> Note:
    return Note(images, exchanges, place, "node", time.time(), failed)


def test_ranks_are_told_by_where_they_are_the_last_first():
    ahead, behind = note(64, 12), note(64, 11, "data_pipeline/read.py:5 read()")
    assert list(places({0: ahead, 1: ahead, 2: behind, 3: ahead})) == [
        "rank 2 on node: image 64, 11 exchanges begun, in data_pipeline/read.py:5 read()",
        "ranks 0-1, 3 on node: image 64, 12 exchanges begun, in trainer/loop.py:1 train()",
    ]
    assert spans([7, 0, 1, 2, 4]) == "ranks 0-2, 4, 7"


def test_who_is_to_blame_is_who_failed_or_else_who_is_behind():
    notes = {0: note(64, 12), 1: note(32, 9), 2: note(64, 12, failed="OSError: full")}
    assert blamed(notes, own=0) == "rank 2 ended with OSError: full"
    del notes[2]
    assert "Last heard of: rank 1 0 s ago. Where they were: rank 1 on node: image 32" in blamed(notes, own=0)
    assert "rank 0, unless torchrun keeps it" in blamed({1: notes[1]}, own=1)


def test_the_flight_recorder_is_on_unless_the_user_chose(tmp_path, monkeypatch):
    names = ("TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "7")
    record_flights(tmp_path)
    dump = str(tmp_path / "hang" / "nccl-rank-")
    assert [os.environ[name] for name in (*names, "TORCH_FR_BUFFER_SIZE")] == ["1", dump, dump, "7"]
