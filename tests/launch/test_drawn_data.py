"""The doors on data that is drawn rather than read: binary sequences, with no shards and no pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.launch.doors import opened

# The heartbeat experiment, for ten steps on a schedule of twenty.
BEATS = (
    "experiment=dpm_heartbeat",
    "run.images=640",
    "run.save_every=320",
    "data.batch=64",
    "process.schedule.steps=20",
    "preview.every=0",
)


@pytest.fixture(scope="module")
def beats(tmp_path_factory) -> Path:
    """The directory of a short run on heartbeats; read-only."""
    directory = tmp_path_factory.mktemp("beats")
    assert "finished: 640 images seen" in opened("train", *BEATS, f"run.directory={directory}")
    return directory


def rows(directory: Path, out: Path, *more: str) -> np.ndarray:
    text = opened("sample", f"run.directory={directory}", f"out={out}", *more)
    assert f"{out / 'samples.npy'}, one row each" in text
    return np.load(out / "samples.npy")


def test_samples_are_one_array_in_the_range_of_the_data_whatever_the_batch(beats, tmp_path):
    whole = rows(beats, tmp_path / "whole", "count=30")
    assert whole.shape == (30, 20, 1, 1)
    assert set(np.unique(whole)) == {0.0, 1.0}
    part = rows(beats, tmp_path / "part", "count=12", "start=9", "batch=5")
    assert np.array_equal(part, whole[9:21])
    assert not np.array_equal(rows(beats, tmp_path / "other", "count=30", "seed=1"), whole)
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == [
        "picture.png",
        "provenance.json",
        "samples.npy",
    ]


def test_evaluate_bounds_the_likelihood_on_fresh_samples_without_held_out_shards(beats):
    text = opened("evaluate", f"run.directory={beats}", "count=300", "batch=128", "trajectories=8")
    score = json.loads(text.strip().splitlines()[-1])
    assert score["metric"] == "K, a lower bound on log2 p(x_0), in bits a sample"
    assert score["images"] == 300
    assert score["K"] < -np.log2(5), "no bound lies above the entropy of the data"
    entropy = -(0.2 * np.log2(0.2) + 0.8 * np.log2(0.8))
    assert score["K_minus_null"] - score["K"] == pytest.approx(20 * entropy, abs=1e-6)
    assert score["K_per_element"] == pytest.approx(score["K"] / 20)
    assert score["K_standard_error"] > 0
    assert len(score["kl_by_quarter_of_t"]) == 4
    assert score["K_for_any_moments"] == pytest.approx(score["K"], abs=0.2)
    any_moments = opened("evaluate", f"run.directory={beats}", "count=300", "batch=128", "any_moments=true")
    holding = json.loads(any_moments.strip().splitlines()[-1])
    assert holding["K"] is None
    assert holding["K_for_any_moments"] == pytest.approx(score["K_for_any_moments"], abs=1e-9)
    assert score["importance_count"] == 100
    assert 1 <= score["effective_trajectories"] <= 8
    assert all(row["least_bits"] <= row["most_bits"] for row in score["reverse_entropies"])
    kept = [json.loads(path.read_text()) for path in (beats / "metrics").glob("000000000640-*.json")]
    assert score in kept


@pytest.mark.parametrize(
    ("door", "arguments", "said"),
    [
        ("sample", ["sampler=ddim"], "sampler=Ddim needs a GaussianProcess, got process=BinomialProcess"),
        ("sample", ["classes=[1]"], "classes must be of those that the run knows, none"),
        ("evaluate", ["trajectories=1"], "trajectories must be 0, for none, or at least 2, got 1"),
        ("evaluate", ["checkpoint=7"], "no checkpoint after 7 images; it holds 320, 640"),
        (
            "bits",
            ["shards=nowhere"],
            "bits/dim is of images under a chain that goes through x̂_0, got data=Heartbeat",
        ),
    ],
)
def test_what_does_not_fit_binary_sequences_is_named(beats, tmp_path, door, arguments, said):
    out = [f"out={tmp_path}"] if door == "sample" else []
    assert said in opened(door, f"run.directory={beats}", *out, *arguments, status=1)
