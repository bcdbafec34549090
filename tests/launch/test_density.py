"""The doors on densities: K of dequantised images and of drawn ones, and what can be seen of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.launch.doors import opened

SHORT = ("run.images=64", "data.batch=32", "process.schedule.steps=6", "network.layers=1", "network.channels=4")


@pytest.fixture(scope="module")
def of_digits(tmp_path_factory, digits) -> Path:
    """A run of the 2015 model on digits, whose bytes have the mean 78 and the deviation 96."""
    directory = tmp_path_factory.mktemp("of_digits")
    opened(
        "train",
        "experiment=dpm_mnist",
        *SHORT,
        f"run.directory={directory}",
        f"data.shards={digits}/train",
        "data.resolution=8",
        "network.dense=[8]",
        "pixels.mean=78",
        "pixels.deviation=96",
        "preview.every=64",
    )
    return directory


def last_line(text: str) -> dict[str, object]:
    return json.loads(text.strip().splitlines()[-1])


def test_evaluate_gives_k_of_held_out_images_in_every_unit(of_digits, digits):
    score = last_line(opened("evaluate", f"run.directory={of_digits}", f"held_out={digits}/test", "count=100"))
    assert score["images"] == 100
    assert score["ledger"]["bits_per_pixel"] == pytest.approx(score["K"] / 64)
    assert score["ledger"]["bits_per_dim"] == pytest.approx(np.log2(96) - score["K"] / 64)
    assert score in [json.loads(path.read_text()) for path in (of_digits / "metrics").glob("*.json")]


def test_a_parzen_window_stands_beside_k_where_it_is_asked_for(of_digits, digits):
    held_out = f"held_out={digits}/test"
    score = last_line(opened("evaluate", f"run.directory={of_digits}", held_out, "count=100", "parzen=32"))
    assert 0.01 <= score["parzen_width"] <= 1
    # An untrained chain draws noise, in which no digit has more than the density of a broad law over the cube.
    assert -300 < score["parzen_bits"] < 64


def test_the_preview_of_images_is_their_grid(of_digits):
    assert Image.open(of_digits / "samples" / "000000000064.png").size == (8 * 33 + 1, 8 * 33 + 1)


def test_bits_of_256_values_are_refused(of_digits, digits):
    text = opened("bits", f"run.directory={of_digits}", f"shards={digits}/test", status=1)
    assert "bits/dim is of images under a chain that goes through x̂_0" in text


def test_drawn_images_are_kept_as_numbers_and_seen_in_a_grid(tmp_path):
    opened("train", "experiment=dpm_dead_leaves", *SHORT, f"run.directory={tmp_path}", "network.pixelwise=[4]")
    opened("sample", f"run.directory={tmp_path}", "count=5", f"out={tmp_path}/out")
    assert np.load(tmp_path / "out" / "samples.npy").shape == (5, 1, 8, 8)
    assert Image.open(tmp_path / "out" / "picture.png").size == (3 * 33 + 1, 2 * 33 + 1)
