"""The doors that draw from a trained run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.launch.doors import opened


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("0*.png"))}


@pytest.fixture(scope="module")
def drawn(finished, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("drawn")
    opened("sample", f"run.directory={finished}", "count=37", "batch=37", f"out={out}")
    return out


def test_it_writes_one_file_an_image_and_a_grid(drawn):
    assert len(pictures(drawn)) == 37
    assert all(picture.shape == (8, 8) for picture in pictures(drawn).values())
    assert Image.open(drawn / "grid.png").size == (7 * 33 + 1, 6 * 33 + 1)


@pytest.mark.parametrize("batch", [1, 16, 20])
def test_image_i_is_the_same_picture_whatever_the_batch(finished, drawn, tmp_path, batch):
    opened("sample", f"run.directory={finished}", "count=10", "start=25", f"batch={batch}", f"out={tmp_path}")
    whole = pictures(drawn)
    for name, picture in pictures(tmp_path).items():
        assert np.array_equal(picture, whole[name]), name


def test_seeds_averages_checkpoints_and_samplers_can_be_chosen(finished, drawn, tmp_path):
    choices = (["seed=1"], ["half_life=30"], ["checkpoint=64"], ["sampler=ddim", "sampler.steps=5"])
    first = {name: picture for name, picture in pictures(drawn).items() if name == "000000.png"}
    seen = [first["000000.png"].tobytes()]
    for number, choice in enumerate(choices):
        out = tmp_path / str(number)
        opened("sample", f"run.directory={finished}", "count=1", f"out={out}", *choice)
        seen.append(pictures(out)["000000.png"].tobytes())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run.directory=nowhere"], "nowhere holds no run"),
        (["checkpoint=65"], "no checkpoint after 65 images; it holds 64, 128, 192, 256, 320"),
        (["half_life=7"], "no average with the half-life 7"),
        (["sampler=ddim", "sampler.steps=21"], "sampler.steps must be at most process.steps=20, got 21"),
        (["sampler=annealed_langevin"], "sampler=AnnealedLangevin needs a NoiseLadder"),
        (["batch=0"], "batch must be at least 1"),
        (["count=0"], "count must be at least 1"),
        (["start=-2"], "start at least 0"),
        (["sampler.eta=1"], "has no such field"),
    ],
)
def test_what_is_not_there_is_named(finished, tmp_path, arguments, said):
    text = opened("sample", f"run.directory={finished}", f"out={tmp_path}", *arguments, status=1)
    assert said in text


def test_evaluate_prints_one_json_object_last_with_floor_and_ceiling(finished, digits):
    text = opened("evaluate", f"run.directory={finished}", f"held_out={digits}/test")
    score = json.loads(text.strip().splitlines()[-1])
    assert score["metric"] == "Fréchet distance (not FID)"
    assert 0 < score["floor_held_out_real"] < score["samples"] < 2 * score["ceiling_noise"]
    assert score["features_accuracy_on_held_out"] > 0.9
    assert score["images"] == 355
    assert score["perfect_sampler_std"] < score["perfect_sampler_mean"] < score["samples"]
    assert score in [json.loads(path.read_text()) for path in (finished / "metrics").glob("000000000320-*.json")]


def test_the_runs_own_sampler_can_be_changed_in_part(finished, tmp_path):
    opened("sample", f"run.directory={finished}", "count=1", "sampler.steps=4", f"out={tmp_path}")
    assert json.loads((tmp_path / "provenance.json").read_text())["sampler"] == "Ancestral(steps=4, clip=True)"


def test_a_folder_never_mixes_images_of_unlike_choices(finished, tmp_path):
    opened("sample", f"run.directory={finished}", "count=1", f"out={tmp_path}")
    opened("sample", f"run.directory={finished}", "count=1", "start=1", f"out={tmp_path}")
    text = opened("sample", f"run.directory={finished}", "count=1", "seed=9", f"out={tmp_path}", status=1)
    assert "holds images of another seed: 0, not 9" in text


def test_a_run_that_was_moved_is_the_one_that_is_drawn_from(finished, drawn, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(finished, moved)
    opened("sample", f"run.directory={moved}", "count=1")
    picture = moved / "samples" / "000000000320" / "000000.png"
    assert np.array_equal(np.asarray(Image.open(picture)), pictures(drawn)["000000.png"])


def test_evaluate_refuses_shards_without_classes_or_too_many_images(finished, digits):
    text = opened("evaluate", f"run.directory={finished}", f"held_out={digits}/test", "count=400", status=1)
    assert "count must lie in 4 .. 355" in text
