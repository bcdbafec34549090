"""Saves that fail, are tried again, or are another launch's to make."""

from __future__ import annotations

import pytest

from tests.trainer import tiny
from tests.trainer.checkpoints.cuts import saved as save
from trainer.checkpoints import listing, tensor_file
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.checkpoints.claim import Superseded
from trainer.checkpoints.manifest import Manifest
from trainer.checkpoints.verification import faults


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


@pytest.fixture
def full(monkeypatch):
    """A list that says, for the saves to come, whether the disk is full; afterwards there is room."""
    planned: list[bool] = []

    def write(path, shards):
        if planned and planned.pop(0):
            raise OSError(28, f"{path}: No space left on device")
        return tensor_file.write(path, shards)

    monkeypatch.setattr("trainer.checkpoints.storage.write", write)
    return planned


def save_each(checkpoints: Checkpoints, state, lines: list[str], saves: int) -> None:
    with checkpoints.telling(lines.append):
        for number in range(saves):
            tiny.advance(state, number)
            checkpoints.save(state)


def test_a_failed_save_is_told_and_the_next_one_is_another_try(checkpoints, full):
    lines: list[str] = []
    full += [False, True, True]
    save_each(checkpoints, tiny.state(), lines, saves=4)
    assert [int(path.name) for path in checkpoints.all()] == [8, 32]
    first, second = (line for line in lines if line.startswith("warning: could not save"))
    assert "000000000016" in first
    assert "(failure 1 in a row" in first
    assert "(failure 2 in a row" in second


def test_leaving_with_the_last_save_failed_is_an_error(checkpoints, full):
    full += [False, True]
    with pytest.raises(OSError, match=r"000000000016: .*No space left .*; the latest stays 000000000008"):
        save_each(checkpoints, tiny.state(), [], saves=2)


def test_too_many_failed_saves_in_a_row_end_the_run(checkpoints, full):
    state = tiny.state()
    full += [True, True, False, True, True, True]
    with pytest.raises(OSError, match=r"could not save checkpoint .*000000000048"):
        save_each(checkpoints, state, [], saves=9)
    assert state.images == 56
    assert [path.name for path in checkpoints.all()] == ["000000000024"]


def end_while_saving(checkpoints: Checkpoints) -> None:
    with checkpoints.telling(lambda line: None):
        checkpoints.save(tiny.state())
        raise KeyError("what went wrong")


def test_a_failed_save_does_not_hide_what_ended_training(checkpoints, monkeypatch):
    def write(path, shards):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("trainer.checkpoints.storage.write", write)
    with pytest.raises(KeyError, match="what went wrong"):
        end_while_saving(checkpoints)
    with pytest.raises(OSError, match="ZeroDivisionError: a bug"):
        save(Checkpoints(checkpoints.directory), tiny.state())


def test_an_old_checkpoint_that_cannot_be_removed_is_told_and_no_failed_save(tmp_path, monkeypatch):
    lines: list[str] = []

    def busy(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(16, f"{path}: Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr("trainer.checkpoints.listing.shutil.rmtree", busy)
        checkpoints = Checkpoints(tmp_path / "run", keep=1)
        save_each(checkpoints, tiny.state(), lines, saves=2)
        again = Checkpoints(tmp_path / "run")
        again.restore(tiny.state())
        with again.telling(lines.append):
            pass
    assert [line.split()[0] for line in lines] == ["saving", "saved", "saving", "saved", "what"]
    assert "an old checkpoint could not be removed" in lines[3]
    assert [path.name for path in checkpoints.all()] == ["000000000016"]
    Checkpoints(tmp_path / "run").restore(tiny.state())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["000000000016"]


def test_of_two_launches_the_later_one_saves_and_the_other_one_commits_nothing(tmp_path):
    first, second = Checkpoints(tmp_path / "run"), Checkpoints(tmp_path / "run")
    state = first.restore(tiny.state())
    for number in range(2):
        tiny.advance(state, number)
        save(first, state)
    later = second.restore(tiny.state(seed=1))
    assert later.images == 16
    for launch in (state, later):
        tiny.advance(launch, 2)
    with pytest.raises(Superseded, match=r"process \d+ on .* writes the checkpoints of this run since"):
        save(first, state)
    assert [int(path.name) for path in first.all()] == [8, 16]
    assert list(first.directory.glob("*.partial")) == []
    save(second, later)
    assert faults(Manifest.read(second.at(24))) == []


def test_a_save_that_another_launch_overtakes_comes_to_nothing(tmp_path, monkeypatch):
    """The later one begins while the file of the first is being written, and while its manifest is."""
    for when in ("trainer.checkpoints.storage.write", "trainer.checkpoints.saver.sync"):
        first, state = Checkpoints(tmp_path / when), tiny.state(steps=1)
        plain = tensor_file.write if when.endswith("write") else listing.sync

        def overtaken(*arguments, first=first, plain=plain):
            done = plain(*arguments)
            Checkpoints(first.directory).restore(tiny.state())
            return done

        first.restore(state)
        with monkeypatch.context() as patched:
            patched.setattr(when, overtaken)
            with pytest.raises(OSError, match="could not save checkpoint"):
                save(first, state)
        assert list(first.directory.iterdir()) == []
