"""The Parzen window against scikit-learn's kernel density, and where the truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.neighbors import KernelDensity

from models.noise import Noise, Purpose
from models.pixels import to_bytes
from trainer.metrics.parzen import WIDTHS, log_likelihood, parzen_window, points


def images(start: int, count: int, scale: float = 0.3) -> torch.Tensor:
    drawn = Noise(0, torch.arange(start, start + count)).normal(Purpose.PRIOR, (1, 2, 2))
    return to_bytes(scale * drawn)


def test_it_is_the_density_of_scikit_learn():
    centres, x = points(images(0, 30)), points(images(100, 300))
    found = log_likelihood(centres, x, WIDTHS[[10, 30]])
    for width, row in zip(WIDTHS[[10, 30]], found, strict=True):
        theirs = KernelDensity(bandwidth=float(width)).fit(centres.numpy()).score_samples(x.numpy())
        torch.testing.assert_close(row, torch.from_numpy(theirs), rtol=1e-9, atol=1e-9)


def test_many_samples_of_the_law_come_near_its_entropy_and_other_samples_do_not():
    right = parzen_window(images(0, 4000), images(10_000, 400))
    std = 0.3 / 2  # [-1, 1] is twice as wide as [0, 1]
    truth = -4 * math.log2(std * math.sqrt(2 * math.pi * math.e))
    assert truth - 0.5 < right["parzen_bits"] < truth + 3 * right["parzen_standard_error"] + 0.1
    assert parzen_window(images(0, 4000, 0.9), images(10_000, 400))["parzen_bits"] < right["parzen_bits"] - 1


def test_the_width_is_not_chosen_on_the_images_that_are_scored():
    held_out = images(500, 40)
    held_out[1::2] = 255  # far from everything: the width stays that of the others
    assert parzen_window(images(0, 200), held_out)["parzen_width"] == pytest.approx(
        parzen_window(images(0, 200), images(500, 40))["parzen_width"]
    )


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="at least 4 held-out images, got 3"):
        parzen_window(images(0, 10), images(0, 3))
