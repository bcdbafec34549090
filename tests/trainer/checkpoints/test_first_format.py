"""Checkpoints of the first format, which runs of before hold: a file for each kind, whole tensors, sha256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.trainer import tiny
from tests.trainer.checkpoints.cuts import begin
from trainer.checkpoints.average import identity, load_average
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.checkpoints.contents import kinds_of
from trainer.checkpoints.manifest import Manifest
from trainer.checkpoints.verification import faults

KINDS = ["parameters", "exp_avg", "exp_avg_sq", "steps", "ema-100", "ema-5000"]


def save_first_format(directory: Path, state) -> Path:
    """As versions of before wrote it."""
    target = directory / f"{state.images:012d}"
    target.mkdir(parents=True)
    files = {}
    for kind, shards in kinds_of(state).items():
        path = target / f"{kind}.safetensors"
        save_file({name: shard.whole.contiguous() for name, shard in shards.items()}, path)
        content = path.read_bytes()
        files[path.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {
        "format": 1,
        "images": state.images,
        "cursor": state.cursor,
        "data": state.data,
        "versions": {"python": "3.11", "torch": "2.13.0"},
        "files": dict(sorted(files.items())),
    }
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return target


@pytest.fixture
def saved():
    return tiny.state(seed=0, steps=3)


@pytest.fixture
def old(saved, tmp_path):
    return save_first_format(tmp_path / "run" / "checkpoints", saved)


def test_a_run_of_before_goes_on_and_saves_in_the_new_format(saved, old):
    checkpoints = Checkpoints(old.parent)
    resumed = checkpoints.restore(tiny.state(seed=1))
    assert (resumed.images, resumed.cursor) == (saved.images, saved.cursor)
    assert tiny.same(tiny.tensors(resumed), tiny.tensors(saved))
    for state in (resumed, saved):
        tiny.advance(state, 3)
    checkpoints.save(resumed)
    checkpoints.wait()
    assert tiny.same(tiny.tensors(Checkpoints(old.parent).restore(tiny.state(seed=1))), tiny.tensors(saved))


def test_its_averages_are_loaded_and_known_by_the_file_that_they_are(saved, old):
    for name in set(KINDS) - {"ema-5000"}:
        (old / f"{name}.safetensors").unlink()
    average = load_average(old, 5000.0, tiny.weights(tiny.engine()))
    assert tiny.same(average, tiny.averages(saved, 5000.0))
    content = (old / "ema-5000.safetensors").read_bytes()
    assert identity(old, 5000.0) == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with pytest.raises(ValueError, match=r"parameters\.safetensors is missing; the manifest lists it"):
        Checkpoints(old.parent).restore(tiny.state(seed=1))


@pytest.mark.parametrize("kind", KINDS)
def test_an_altered_or_shortened_file_is_refused_by_name(old, kind):
    path = old / f"{kind}.safetensors"
    content = path.read_bytes()
    assert faults(Manifest.read(old)) == []
    for harmed in (content[:-1] + bytes([content[-1] ^ 1]), content[:-5], b""):
        path.write_bytes(harmed)
        with pytest.raises(ValueError, match=path.name):
            Checkpoints(old.parent).restore(tiny.state(seed=1))


def test_which_average_was_its_first_is_not_known(saved, old):
    with pytest.raises(ValueError, match=r"give warm_start\.half_life, one of 100, 5000"):
        begin(tiny.state(seed=1), old.parents[1])
    begun = tiny.state(seed=1)
    begin(begun, old.parents[1], 5000.0)
    assert tiny.same(tiny.weights(begun.engine), tiny.averages(saved, 5000.0))
