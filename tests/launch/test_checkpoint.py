"""The door to a run's checkpoints, and warm starts from them, as a person would use them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.launch.doors import SMALL, opened


@pytest.fixture
def run(finished, tmp_path):
    """A run of its own, to be harmed."""
    return shutil.copytree(finished, tmp_path / "run")


def test_it_lists_verifies_and_describes(run):
    listed = opened("checkpoint", f"run.directory={run}")
    assert [line.split()[0] for line in listed.splitlines()] == ["images", "64", "128", "192", "256", "320"]
    assert " local " in listed
    assert opened("checkpoint", f"run.directory={run}", "action=verify").count(": whole") == 5
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 7"))
    told = json.loads(opened("checkpoint", f"run.directory={run}", "action=describe").splitlines()[-1])
    weights = load_file(run / "checkpoints" / "000000000320" / "rank-00000.safetensors")
    parameters = sum(each.numel() for name, each in weights.items() if name.startswith("parameters/"))
    assert (told["images"], told["parameters"], told["half_lives"]) == (320, parameters, [100, 30])
    assert set(told["kinds"]) == {"parameters", "exp_avg", "exp_avg_sq", "steps", "ema-100", "ema-30"}
    assert told["versions"]["torch"] == torch.__version__
    assert any(line.startswith("run.seed: 0 there, 7 here") for line in told["config_changes"])
    told = opened("checkpoint", f"run.directory={run}", "action=describe", "checkpoint=65", status=1)
    assert "holds no checkpoint after 65 images" in told


def test_every_bad_file_is_named(run):
    first, second, *_, last = sorted((run / "checkpoints").iterdir())
    file = first / "rank-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (second / "manifest.json").write_text("{}")
    (last / "rank-00000.safetensors").unlink()
    told = opened("checkpoint", f"run.directory={run}", "action=verify", status=1)
    assert told.count(": whole") == 2
    assert f"{file} was altered" in told
    assert f"{second / 'manifest.json'} is no manifest" in told
    assert f"{last / 'rank-00000.safetensors'} is missing" in told
    assert "is no manifest" in opened("checkpoint", f"run.directory={run}", status=1)


def test_a_run_begins_with_the_weights_of_another_one_or_of_a_file(run, digits, tmp_path):
    """Without a step to take, what is saved is what it began with; afterwards the other run is not needed."""
    source = run / "checkpoints" / "000000000320" / "rank-00000.safetensors"
    average = {
        name.removeprefix("ema-30/"): tensor
        for name, tensor in load_file(source).items()
        if name.startswith("ema-30/")
    }
    save_file(average, tmp_path / "exported.safetensors")
    small = (*SMALL, f"data.shards={digits}/train", "run.images=16", "optimizer.learning_rate=1e-30")
    ways = {"from-run": [f"warm_start.path={run}", "warm_start.half_life=30"]}
    ways["from-file"] = [f"warm_start.path={tmp_path / 'exported.safetensors'}"]
    for name, way in ways.items():
        opened("train", *small, f"run.directory={tmp_path / name}", *way)
        (found,) = (tmp_path / name / "checkpoints").iterdir()
        held = load_file(found / "rank-00000.safetensors")
        assert found.name == "000000000016"
        assert float(held["steps/optimizer"]) == 1
        for weight, tensor in average.items():
            assert torch.equal(held[f"parameters/{weight}"], tensor), weight
            assert torch.equal(held[f"ema-100/{weight}"], tensor), weight
    (tmp_path / "exported.safetensors").unlink()
    assert "finished" in opened("train", *small, f"run.directory={tmp_path / 'from-file'}", *ways["from-file"])


def test_a_warm_start_from_another_architecture_is_refused_before_training(finished, digits, tmp_path):
    command = (*SMALL, f"data.shards={digits}/train", f"run.directory={tmp_path}", f"warm_start.path={finished}")
    told = opened("train", *command, "network.channels=16", status=1)
    assert f"warm_start.path={finished}: the checkpoint is of another architecture: parameters 'conv_in" in told
    assert not (tmp_path / "checkpoints").exists()
