"""Checkpoints: whole or not at all, bit for bit, and never unpickled."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer import tiny
from tests.trainer.checkpoints.cuts import begin
from tests.trainer.checkpoints.cuts import saved as save
from trainer.checkpoints.average import load_average
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.checkpoints.contents import everything_in
from trainer.checkpoints.manifest import Manifest, checksum
from trainer.checkpoints.verification import faults

FILE = "rank-00000.safetensors"


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


@pytest.mark.parametrize("steps", [0, 3])
def test_what_is_restored_is_what_was_saved_to_the_last_bit(checkpoints, steps):
    saved = tiny.state(seed=0, steps=steps)
    save(checkpoints, saved)
    restored = checkpoints.restore(tiny.state(seed=1, steps=2))
    assert (restored.images, restored.cursor) == (8 * steps, 8 * steps)
    assert tiny.same(tiny.tensors(restored), tiny.tensors(saved))


def test_training_goes_on_from_a_checkpoint_bit_for_bit(checkpoints):
    undisturbed = tiny.state(seed=0, steps=2)
    save(checkpoints, undisturbed)
    resumed = checkpoints.restore(tiny.state(seed=1))
    for number in range(2, 5):
        tiny.advance(undisturbed, number)
        tiny.advance(resumed, number)
    assert tiny.same(tiny.tensors(resumed), tiny.tensors(undisturbed))


def test_saving_changes_nothing_of_the_run(checkpoints):
    state = tiny.state(steps=2)
    before = tiny.tensors(state)
    save(checkpoints, state)
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
        assert save(checkpoints, state) == checkpoints.latest()
    assert [int(path.name) for path in checkpoints.all()] == [9_000, 10_000, 1_000_000_000]


@pytest.mark.parametrize(
    ("keep", "left"), [(0, [8, 16, 24, 32]), (1, [32]), (3, [16, 24, 32]), (9, [8, 16, 24, 32])]
)
def test_the_newest_are_kept(tmp_path, keep, left):
    checkpoints, state = Checkpoints(tmp_path, keep), tiny.state()
    for number in range(4):
        tiny.advance(state, number)
        save(checkpoints, state)
    assert [int(path.name) for path in checkpoints.all()] == left


def test_what_a_dying_process_left_behind_is_ignored_and_cleaned_up(checkpoints):
    saved = tiny.state(steps=1)
    whole = save(checkpoints, saved)
    torn = checkpoints.directory / "000000000999.partial"
    torn.mkdir()
    (torn / "parameters.safetensors").write_bytes(b"half of")
    assert checkpoints.latest() == whole
    assert tiny.same(tiny.tensors(checkpoints.restore(tiny.state(seed=1))), tiny.tensors(saved))
    assert list(checkpoints.directory.iterdir()) == [whole]


def test_a_checkpoint_is_json_and_raw_numbers(checkpoints):
    directory = save(checkpoints, tiny.state(steps=1))
    assert sorted(path.name for path in directory.iterdir()) == ["manifest.json", FILE]
    json.loads((directory / "manifest.json").read_text())
    content = (directory / FILE).read_bytes()
    length = int.from_bytes(content[:8], "little")  # the format of safetensors: length, header, numbers
    header = json.loads(content[8 : 8 + length])
    numbers = max(entry["data_offsets"][1] for entry in header.values())
    assert len(content) == 8 + length + numbers, "it holds more than its header says"


def test_any_reader_of_safetensors_reads_it(checkpoints):
    saved = tiny.state(steps=1)
    assert tiny.same(load_file(save(checkpoints, saved) / FILE), kept(saved))


def kept(state) -> dict[str, torch.Tensor]:
    """Every tensor by kind/name."""
    return {key: shard.whole.clone() for key, shard in everything_in(state).items()}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pickled(path: Path) -> None:
    path.write_bytes(malicious(path.with_name("ran")))


HARMS = [cut, flip_a_bit, empty, Path.unlink, pickled]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_file_that_is_not_what_was_written_is_refused_by_name(checkpoints, harm):
    path = save(checkpoints, tiny.state(steps=1)) / FILE
    harm(path)
    state = tiny.state(seed=1)
    before = tiny.tensors(state)
    with pytest.raises(ValueError, match=FILE):
        checkpoints.restore(state)
    if harm is not flip_a_bit:
        assert tiny.same(tiny.tensors(state), before), "it must be refused before anything is overwritten"
    assert len(faults(Manifest.read(checkpoints.latest()))) == 1


def test_every_byte_of_a_file_is_checked(checkpoints):
    path = save(checkpoints, tiny.state()) / FILE
    content = path.read_bytes()
    for place in [*range(0, 200, 7), *range(200, len(content), len(content) // 40), len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        assert str(path) in faults(Manifest.read(path.parent))[0]
    path.write_bytes(content)
    assert faults(Manifest.read(path.parent)) == []


@pytest.mark.parametrize(
    "harm", [lambda path: path.write_text(path.read_text()[:40]), empty, Path.unlink, pickled]
)
def test_a_damaged_or_missing_manifest_is_refused(checkpoints, harm):
    harm(save(checkpoints, tiny.state()) / "manifest.json")
    with pytest.raises(ValueError, match=r"000000000000 is no whole checkpoint: manifest\.json"):
        checkpoints.restore(tiny.state())
    assert not (checkpoints.latest() / "ran").exists()


def test_a_manifest_with_another_digit_is_refused(checkpoints):
    path = save(checkpoints, tiny.state(steps=1)) / "manifest.json"
    path.write_text(path.read_text().replace('"cursor": 8', '"cursor": 9'))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged: it has another checksum"):
        checkpoints.restore(tiny.state())


def test_another_format_is_refused(checkpoints):
    path = save(checkpoints, tiny.state()) / "manifest.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(ValueError, match=r"manifest\.json is no manifest of format 1 or 2"):
        checkpoints.restore(tiny.state())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "no manifest"),
        ('{"format": 1}', "images must be of the type int, got None"),
        ('{"format": 1, "images": 0, "cursor": 0, "data": "", "files": {}}', "lists no parameters"),
        (
            '{"format": 1, "images": 0, "cursor": 0, "data": "", "files": {"../x": {}}}',
            "is no file of the checkpoint",
        ),
    ],
)
def test_a_manifest_of_another_shape_is_refused(checkpoints, content, said):
    (save(checkpoints, tiny.state()) / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        checkpoints.restore(tiny.state())


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda named: named["norm_out.bias"]["chunks"].clear(),
            "it lists 0 elements of parameters 'norm_out.bias'",
        ),
        (lambda named: named["norm_out.bias"]["chunks"][0].__setitem__(0, 1), "cannot lie in"),
        (lambda named: named["norm_out.bias"]["chunks"][0].__setitem__(2, 1), "IndexError"),
        (lambda named: named["norm_out.bias"]["chunks"][0].__setitem__(3, 10**9), "cannot lie in"),
        (lambda named: named["norm_out.bias"]["chunks"][0][4].append(""), "checksums of parameters"),
        (lambda named: named.pop("norm_out.bias"), "'norm_out.bias' is only in the configured network"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(checkpoints, harm, said):
    path = save(checkpoints, tiny.state()) / "manifest.json"
    document = json.loads(path.read_text())
    document.pop("checksum")
    harm(document["tensors"]["parameters"])
    path.write_text(json.dumps({**document, "checksum": checksum(document)}))
    with pytest.raises(ValueError, match=said):
        checkpoints.restore(tiny.state())


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def malicious(would_create: Path) -> bytes:
    return pickle.dumps(Payload(would_create))


def test_a_planted_pickle_does_not_run(checkpoints, tmp_path):
    """Wherever torch or DCP would look for one: beside a whole checkpoint, and in place of its files."""
    ran = tmp_path / "ran"
    pickle.loads(malicious(ran))
    assert ran.exists(), "the payload works"
    ran.unlink()
    saved = tiny.state(steps=1)
    directory = save(checkpoints, saved)
    for name in (".metadata", "__0_0.distcp", "parameters.pt", "model.pth", "mp_rank_00_model_states.pt"):
        (directory / name).write_bytes(malicious(ran))
    restored = checkpoints.restore(tiny.state(seed=1))
    assert tiny.same(tiny.tensors(restored), tiny.tensors(saved))
    for name in (FILE, "manifest.json"):
        (directory / name).write_bytes(malicious(ran))
        with pytest.raises(ValueError, match=name):
            checkpoints.restore(tiny.state(seed=1))
        with pytest.raises(ValueError, match=name):
            load_average(directory, 100.0, tiny.weights(tiny.engine()))
        with pytest.raises(ValueError, match=name):
            begin(tiny.state(), directory)
    (tmp_path / "weights.safetensors").write_bytes(malicious(ran))
    with pytest.raises(ValueError, match="weights"):
        begin(tiny.state(), tmp_path / "weights.safetensors")
    assert not ran.exists()


def test_averages_of_nearly_equal_half_lives_are_kept_apart(checkpoints):
    saved = tiny.state(steps=2, half_lives=(1234567.0, 1234568.0))
    directory = save(checkpoints, saved)
    for half_life in saved.ema.averages:
        average = load_average(directory, half_life, tiny.weights(saved.engine))
        assert tiny.same(average, tiny.averages(saved, half_life))


def test_a_checkpoint_of_another_architecture_is_refused(checkpoints):
    save(checkpoints, tiny.state(channels=16))
    with pytest.raises(ValueError, match=r"another architecture: parameters 'conv_in\.weight'"):
        checkpoints.restore(tiny.state())


def test_an_average_that_was_not_kept_is_refused(checkpoints):
    directory = save(checkpoints, tiny.state(half_lives=(100.0,)))
    with pytest.raises(ValueError, match="no average with the half-life 7"):
        checkpoints.restore(tiny.state(half_lives=(7.0,)))
    with pytest.raises(ValueError, match="no average with the half-life 7"):
        load_average(directory, 7.0, tiny.weights(tiny.engine()))


def test_an_average_can_be_loaded_alone(checkpoints):
    """Nothing else is read: the weights, which lie first in the file, may be damaged."""
    saved = tiny.state(steps=3)
    path = save(checkpoints, saved) / FILE
    chunk = Manifest.read(path.parent).of_kind("parameters")["conv_in.weight"].chunks[0]
    content = bytearray(path.read_bytes())
    content[chunk.offset] ^= 1
    path.write_bytes(content)
    average = load_average(path.parent, 5000.0, tiny.weights(tiny.engine()))
    assert tiny.same(average, tiny.averages(saved, 5000.0))
    with pytest.raises(ValueError, match=r"another architecture: averages 'conv_in\.weight'"):
        load_average(path.parent, 5000.0, tiny.weights(tiny.engine(tiny.network(channels=16))))


def test_what_stands_still_and_what_is_whole_is_told(checkpoints):
    lines, state = [], tiny.state(steps=1)
    with checkpoints.telling(lines.append):
        save(checkpoints, state)
        save(checkpoints, state)
    assert [line.split()[0] for line in lines] == ["saving", "saved"]
    assert "training stood still for 0." in lines[0]


def test_another_version_of_torch_is_told(checkpoints, monkeypatch, caplog):
    save(checkpoints, tiny.state())
    lines: list[str] = []
    monkeypatch.setattr("trainer.checkpoints.checkpoints.versions", lambda: {"torch": "9.9"})
    resumed = Checkpoints(checkpoints.directory)
    resumed.restore(tiny.state(seed=1))
    with resumed.telling(lines.append):
        pass
    said = f"{checkpoints.latest()} was saved with torch {version('torch')}; this is 9.9"
    assert lines == [said]
    finished = Checkpoints(checkpoints.directory)  # of a run with nothing left to train, which nobody notes
    finished.restore(tiny.state(seed=1))
    with caplog.at_level("INFO", "trainer.checkpoints"):
        finished.tell()
    assert said in caplog.messages


A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.trainer import tiny
from tests.trainer.checkpoints.cuts import saved
from trainer.checkpoints.checkpoints import Checkpoints

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit fails, as on a full disk
checkpoints, state = Checkpoints(Path(sys.argv[1])), tiny.state(steps=1)
saved(checkpoints, state)
tiny.advance(state, 1)
for limit in (0, 100, int(sys.argv[2])):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        saved(checkpoints, state)
    except OSError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(*sorted(path.name for path in Path(sys.argv[1]).iterdir()))
checkpoints.restore(tiny.state(seed=1))
print(saved(checkpoints, state).name)
"""


def test_a_full_disk_leaves_the_checkpoint_before_as_the_latest(tmp_path):
    """In a real process whose files may not grow: from the start, within a header, and within the tensors."""
    size = (save(Checkpoints(tmp_path / "measure"), tiny.state()) / FILE).stat().st_size
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
