"""Checkpoints: whole or not at all, bit for bit, and never unpickled."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer import tiny
from trainer.checkpoints.average import load_average
from trainer.checkpoints.checkpoints import Checkpoints

FILES = [
    "parameters.safetensors",
    "exp_avg.safetensors",
    "exp_avg_sq.safetensors",
    "steps.safetensors",
    "ema-100.safetensors",
    "ema-5000.safetensors",
]


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


@pytest.mark.parametrize("steps", [0, 3])
def test_what_is_restored_is_what_was_saved_to_the_last_bit(checkpoints, steps):
    saved = tiny.state(seed=0, steps=steps)
    checkpoints.save(saved)
    restored = checkpoints.restore(tiny.state(seed=1, steps=2))
    assert (restored.images, restored.cursor) == (8 * steps, 8 * steps)
    assert tiny.same(tiny.tensors(restored), tiny.tensors(saved))


def test_training_goes_on_from_a_checkpoint_bit_for_bit(checkpoints):
    undisturbed = tiny.state(seed=0, steps=2)
    checkpoints.save(undisturbed)
    resumed = checkpoints.restore(tiny.state(seed=1))
    for number in range(2, 5):
        tiny.advance(undisturbed, number)
        tiny.advance(resumed, number)
    assert tiny.same(tiny.tensors(resumed), tiny.tensors(undisturbed))


def test_saving_changes_nothing_of_the_run(checkpoints):
    state = tiny.state(steps=2)
    before = tiny.tensors(state)
    checkpoints.save(state)
    assert tiny.same(tiny.tensors(state), before)


def test_without_a_checkpoint_the_state_stays_as_it_was(checkpoints):
    state = tiny.state(steps=1)
    before = tiny.tensors(state)
    assert checkpoints.restore(state) is state
    assert tiny.same(tiny.tensors(state), before)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        checkpoints.latest()


def test_the_latest_is_the_one_with_the_most_images(checkpoints):
    state = tiny.state()
    for images in (9_000, 10_000, 1_000_000_000):
        state.images = images
        assert checkpoints.save(state) == checkpoints.latest()
    assert [int(path.name) for path in checkpoints.all()] == [9_000, 10_000, 1_000_000_000]


@pytest.mark.parametrize(
    ("keep", "left"), [(0, [8, 16, 24, 32]), (1, [32]), (3, [16, 24, 32]), (9, [8, 16, 24, 32])]
)
def test_the_newest_are_kept(tmp_path, keep, left):
    checkpoints, state = Checkpoints(tmp_path, keep), tiny.state()
    for number in range(4):
        tiny.advance(state, number)
        checkpoints.save(state)
    assert [int(path.name) for path in checkpoints.all()] == left


def test_what_a_dying_process_left_behind_is_ignored_and_cleaned_up(checkpoints):
    saved = tiny.state(steps=1)
    whole = checkpoints.save(saved)
    torn = checkpoints.directory / "000000000999.partial"
    torn.mkdir()
    (torn / "parameters.safetensors").write_bytes(b"half of")
    assert checkpoints.latest() == whole
    assert tiny.same(tiny.tensors(checkpoints.restore(tiny.state(seed=1))), tiny.tensors(saved))
    assert list(checkpoints.directory.iterdir()) == [whole]


def test_a_checkpoint_is_json_and_raw_numbers_and_nothing_is_unpickled(checkpoints, monkeypatch):
    saved = tiny.state(steps=1)
    directory = checkpoints.save(saved)
    assert sorted(path.name for path in directory.iterdir()) == sorted([*FILES, "manifest.json"])
    for name in FILES:
        content = (directory / name).read_bytes()
        length = int.from_bytes(content[:8], "little")  # the format of safetensors: length, header, numbers
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        numbers = max(entry["data_offsets"][1] for entry in header.values())
        assert len(content) == 8 + length + numbers, f"{name} holds more than its header says"

    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for where, what in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(where, what, refuse)
    checkpoints.restore(tiny.state(seed=1))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, flip_a_bit, empty, Path.unlink], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_what_was_written_is_refused_by_name(checkpoints, name, harm):
    harm(checkpoints.save(tiny.state(steps=1)) / name)
    state = tiny.state(seed=1)
    before = tiny.tensors(state)
    with pytest.raises(ValueError, match=name):
        checkpoints.restore(state)
    assert tiny.same(tiny.tensors(state), before), "it must be refused before anything is overwritten"


@pytest.mark.parametrize("harm", [lambda path: path.write_text(path.read_text()[:40]), empty, Path.unlink])
def test_a_damaged_or_missing_manifest_is_refused(checkpoints, harm):
    harm(checkpoints.save(tiny.state()) / "manifest.json")
    with pytest.raises(ValueError, match=r"000000000000 is no whole checkpoint: manifest\.json"):
        checkpoints.restore(tiny.state())


def test_another_format_is_refused(checkpoints):
    path = checkpoints.save(tiny.state()) / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match=r"manifest\.json is no manifest of format 1"):
        checkpoints.restore(tiny.state())


@pytest.mark.parametrize(
    ("content", "said"), [("[]", "no manifest"), ('{"format": 1}', "images must be of the type int, got None")]
)
def test_a_manifest_of_another_shape_is_refused(checkpoints, content, said):
    (checkpoints.save(tiny.state()) / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        checkpoints.restore(tiny.state())


def test_a_manifest_that_lists_too_little_is_refused(checkpoints):
    path = checkpoints.save(tiny.state()) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["exp_avg.safetensors"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"lists no exp_avg\.safetensors"):
        checkpoints.restore(tiny.state())


def test_averages_of_nearly_equal_half_lives_are_kept_apart(checkpoints):
    saved = tiny.state(steps=2, half_lives=(1234567.0, 1234568.0))
    directory = checkpoints.save(saved)
    for half_life in saved.ema.averages:
        average = load_average(directory, half_life, tiny.weights(saved.engine))
        assert tiny.same(average, tiny.averages(saved, half_life))


def test_a_checkpoint_of_another_architecture_is_refused(checkpoints):
    checkpoints.save(tiny.state(channels=16))
    with pytest.raises(ValueError, match=r"another architecture: parameters 'conv_in\.weight'"):
        checkpoints.restore(tiny.state())


def test_an_average_that_was_not_kept_is_refused(checkpoints):
    directory = checkpoints.save(tiny.state(half_lives=(100.0,)))
    with pytest.raises(ValueError, match="no average with the half-life 7"):
        checkpoints.restore(tiny.state(half_lives=(7.0,)))
    with pytest.raises(ValueError, match="no average with the half-life 7"):
        load_average(directory, 7.0, tiny.weights(tiny.engine()))


def test_an_average_can_be_loaded_alone(checkpoints):
    saved = tiny.state(steps=3)
    directory = checkpoints.save(saved)
    for name in set(FILES) - {"ema-5000.safetensors"}:
        (directory / name).unlink()
    average = load_average(directory, 5000.0, tiny.weights(tiny.engine()))
    assert tiny.same(average, tiny.averages(saved, 5000.0))
    with pytest.raises(ValueError, match=r"another architecture: averages 'conv_in\.weight'"):
        load_average(directory, 5000.0, tiny.weights(tiny.engine(tiny.network(channels=16))))


A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.trainer import tiny
from trainer.checkpoints.checkpoints import Checkpoints

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit fails, as on a full disk
checkpoints, state = Checkpoints(Path(sys.argv[1])), tiny.state(steps=1)
checkpoints.save(state)
tiny.advance(state, 1)
for limit in (0, 100, int(sys.argv[2])):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        checkpoints.save(state)
    except OSError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(*sorted(path.name for path in Path(sys.argv[1]).iterdir()))
checkpoints.restore(tiny.state(seed=1))
print(checkpoints.save(state).name)
"""


def test_a_full_disk_leaves_the_checkpoint_before_as_the_latest(tmp_path):
    """In a real process whose files may not grow: from the start, within a header, and within the tensors."""
    size = (Checkpoints(tmp_path / "measure").save(tiny.state()) / "parameters.safetensors").stat().st_size
    command = [sys.executable, "-c", A_FULL_DISK, str(tmp_path / "run"), str(size - 1)]
    root = Path(__file__).parents[3]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    *errors, left, saved_later = ended.stdout.splitlines()
    assert len(errors) == 3
    for error in errors:
        assert error.startswith(f"could not save checkpoint {tmp_path / 'run' / '000000000016'}: ")
        assert error.endswith("; the latest stays 000000000008")
    assert left == "000000000008"
    assert saved_later == "000000000016"
