"""Dead leaves: radii of the power law, grays that are exactly uniform, and images that are pure functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from data_pipeline.dead_leaves import DeadLeaves
from data_pipeline.order import Purpose, random_words
from data_pipeline.synthetic import unit_interval


def leaf_by_leaf(config: DeadLeaves, seed: int, position: int) -> np.ndarray:
    """One image as the process is told: every leaf in turn, over the whole image, under those that are there."""
    image, leaf = np.full((config.size, config.size), np.nan, np.float32), 0
    grid = np.arange(config.size) + 0.5
    while np.isnan(image).any():
        u = unit_interval(random_words(seed, Purpose.SYNTHESIS, (position << 64) + leaf, 4))
        x, y = (config.size + 2 * config.largest) * u[:2] - config.largest
        inside = (grid[:, None] - y) ** 2 + (grid - x) ** 2 <= config.radius(u[2:3]) ** 2
        image[inside & np.isnan(image)] = math.sqrt(12) * (u[3] - 0.5)
        leaf += 1
    return image


@pytest.mark.parametrize(("size", "smallest", "largest"), [(8, 1.0, 8.0), (5, 0.2, 3.0), (1, 0.5, 1.0)])
def test_images_are_those_of_laying_every_leaf_by_itself(size, smallest, largest):
    config = DeadLeaves(size=size, smallest=smallest, largest=largest)
    expected = np.stack([leaf_by_leaf(config, 3, position) for position in range(4, 8)])
    assert np.array_equal(config.samples(3, 4, 4)[:, 0], expected)


def test_radii_have_the_density_r_to_the_minus_3():
    config = DeadLeaves(smallest=2.0, largest=10.0)
    whole = integrate.quad(lambda r: r**-3, 2, 10)[0]
    shares = np.array([0.01, 0.3, 0.9, 0.99])
    below = [integrate.quad(lambda r: r**-3, 2, radius)[0] for radius in config.radius(shares)]
    assert np.array(below) / whole == pytest.approx(shares)


def test_every_pixel_is_uniform_with_unit_variance_and_neighbours_share_leaves():
    x = DeadLeaves(size=4, smallest=1.0, largest=4.0).samples(0, 0, 3000)[:, 0].astype(np.float64)
    assert stats.kstest(x[:, 1, 2], "uniform", (-(3**0.5), 2 * 3**0.5)).pvalue > 1e-4
    assert (x[:, 0, 0] == x[:, 0, 1]).mean() > (x[:, 0, 0] == x[:, 3, 3]).mean() > 0


def test_neighbours_share_a_leaf_as_often_as_its_covariogram_says():
    """The first leaf that covers either of two pixels covers both with probability |A ∩ A'| / |A ∪ A'|."""
    config = DeadLeaves(size=2, smallest=1.0, largest=4.0)

    def mean_of(area) -> float:
        return integrate.quad(lambda r: area(r) * r**-3, 1, 4)[0]

    both = mean_of(lambda r: 2 * r**2 * math.acos(1 / (2 * r)) - math.sqrt(4 * r**2 - 1) / 2)
    either = 2 * mean_of(lambda r: math.pi * r**2) - both
    x = config.samples(1, 0, 20_000)[:, 0]
    share = (x[:, 0, 0] == x[:, 0, 1]).mean()
    assert share == pytest.approx(both / either, abs=4 * (0.25 / 20_000) ** 0.5)


def test_an_image_depends_on_seed_and_position_alone():
    config = DeadLeaves(size=4, largest=4.0)
    whole = config.samples(7, 0, 6)
    assert whole.shape == (6, 1, 4, 4)
    assert np.array_equal(config.samples(7, 4, 2), whole[4:])
    assert not np.array_equal(config.samples(8, 0, 6), whole)


@pytest.mark.parametrize(
    ("fields", "said"), [({"size": 0}, r"data\.size"), ({"smallest": 40.0}, r"data\.smallest")]
)
def test_bad_input_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        DeadLeaves(**fields)
