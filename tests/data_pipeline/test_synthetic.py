"""Synthetic data: pure functions of (seed, position), with the laws they claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from data_pipeline.synthetic import Heartbeat, Mixture, SwissRoll

EACH = pytest.mark.parametrize(
    "config", [SwissRoll(12, 0.1), Heartbeat(12), Mixture(12)], ids=lambda c: type(c).__name__
)


@EACH
def test_a_sample_depends_on_seed_and_position_alone(config):
    whole = config.samples(7, 0, 100)
    assert np.array_equal(config.samples(7, 31, 17), whole[31:48])
    assert not np.array_equal(config.samples(8, 0, 100), whole)
    assert whole.dtype == np.float32
    assert whole.shape == (100, config.channels, config.resolution, config.resolution)


@EACH
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_global_batches_and_a_stream_resumes_anywhere(config, world):
    parts = [iter(config.build(5).open(24, rank, world)) for rank in range(world)]
    next_batches = [[next(part) for part in parts] for _ in range(2)]
    x = torch.cat([batch.x for step in next_batches for batch in step])
    assert np.array_equal(x.numpy(), config.samples(5, 24, 24))
    assert torch.cat([batch.index for step in next_batches for batch in step]).tolist() == list(range(24, 48))
    assert {batch.cursor for batch in next_batches[1]} == {48}
    resumed = next(iter(config.build(5).open(36)))
    assert torch.equal(resumed.x, x[12:])


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"data\.batch must divide into 1 ranks of 5 micro-batches"):
        SwissRoll(12).build(0).open(0, accumulation=5)


def test_heartbeats_are_the_five_patterns_equally_often():
    x = Heartbeat().samples(0, 0, 5000)[:, :, 0, 0]
    patterns, counts = np.unique(x, axis=0, return_counts=True)
    expected = {tuple(float(place % 5 == first) for place in range(20)) for first in range(5)}
    assert {tuple(pattern) for pattern in patterns.tolist()} == expected
    assert stats.chisquare(counts).pvalue > 1e-4


def test_the_swiss_roll_is_standardised_and_lies_on_its_spiral():
    config = SwissRoll()
    x = config.samples(0, 0, 200_000)[:, :, 0, 0].astype(np.float64)
    exact = [
        integrate.quad(lambda share, i=i, power=power: config.curve(np.array([share]))[0, i] ** power, 0, 1)[0]
        for power in (1, 2)
        for i in (0, 1)
    ]
    assert exact[:2] == pytest.approx([0, 0], abs=1e-9)
    assert sum(exact[2:]) / 2 == pytest.approx(1, abs=1e-9)
    assert np.abs(x.mean(0)).max() < 0.01
    # Back in the roll's own units every point is at radius = angle, modulo a whole turn.
    origin, edge = config.curve(np.array([-0.5]))[0], config.curve(np.array([1.0]))[0]
    centred = (x - origin) * 4.5 * np.pi / np.hypot(*(edge - origin))
    radius, angle = np.hypot(*centred.T), np.arctan2(centred[:, 1], centred[:, 0])
    assert radius.min() > 1.5 * np.pi - 1e-4
    assert radius.max() < 4.5 * np.pi + 1e-4
    turns = (radius - angle) / (2 * np.pi)
    assert np.abs(turns - np.rint(turns)).max() < 1e-5
    assert stats.kstest(radius, "uniform", (1.5 * np.pi, 3 * np.pi)).pvalue > 1e-4


def test_noise_on_the_roll_has_its_width_and_leaves_the_second_moment():
    x = SwissRoll(noise=0.3).samples(0, 0, 100_000)[:, :, 0, 0].astype(np.float64)
    bare = SwissRoll().samples(0, 0, 100_000)[:, :, 0, 0].astype(np.float64)
    noise = (x - 0.91**0.5 * bare) / 0.3
    assert stats.kstest(noise[:, 0], "norm").pvalue > 1e-4
    assert abs(stats.pearsonr(noise[:, 0], noise[:, 1]).statistic) < 0.015
    assert (x**2).mean() == pytest.approx(1, abs=0.01)


def test_the_mixture_is_drawn_from_its_density():
    config = Mixture(means=[[-2.0], [1.0]], stds=[0.5, 0.25], weights=[0.3, 0.7])
    x = config.samples(3, 0, 20_000)[:, 0, 0, 0]
    assert (
        stats.kstest(x, lambda v: 0.3 * stats.norm.cdf(v, -2, 0.5) + 0.7 * stats.norm.cdf(v, 1, 0.25)).pvalue
        > 1e-4
    )
    points = np.array([[-2.0], [0.0], [1.3]])
    expected = np.log(0.3 * stats.norm.pdf(points[:, 0], -2, 0.5) + 0.7 * stats.norm.pdf(points[:, 0], 1, 0.25))
    assert config.log_density(points) == pytest.approx(expected)
    plane = Mixture()
    grid = np.stack(np.meshgrid(*[np.linspace(-4, 4, 401)] * 2), -1).reshape(-1, 2)
    assert np.exp(plane.log_density(grid)).sum() * 0.02**2 == pytest.approx(1, abs=1e-6)


def test_the_score_of_the_mixture_is_the_slope_of_its_log_density():
    config = Mixture(means=[[-2.0, 1.0], [1.0, 0.0], [0.0, 3.0]], stds=[0.5, 0.25, 1.0], weights=[0.3, 0.5, 0.2])
    x, step = np.random.default_rng(0).normal(scale=2, size=(50, 2)), 1e-5
    slopes = [
        (config.log_density(x + step * along) - config.log_density(x - step * along)) / (2 * step)
        for along in np.eye(2)
    ]
    assert config.score(x) == pytest.approx(np.stack(slopes, 1), rel=1e-5, abs=1e-6)
    far = np.full((1, 2), 1e3)  # where every density has underflowed, the widest component is left
    assert config.score(far) == pytest.approx(np.array([[-1e3, -997.0]]))


def test_the_perturbed_mixture_is_the_law_of_noised_data():
    config = Mixture(means=[[-2.0], [1.0]], stds=[0.5, 0.25], weights=[0.3, 0.7])
    noised = config.perturbed(0.6, 0.8)
    x = 0.6 * config.samples(3, 0, 20_000)[:, 0, 0, 0] + 0.8 * np.random.default_rng(0).normal(size=20_000)
    grid = np.linspace(-8, 8, 2001)
    cdf = np.cumsum(np.exp(noised.log_density(grid[:, None]))) * (grid[1] - grid[0])
    assert stats.kstest(x, lambda v: np.interp(v, grid, cdf)).pvalue > 1e-4
    assert (noised.weights, config.perturbed(1.0, 0.0)) == (config.weights, config)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: SwissRoll(batch=0), r"data\.batch"),
        (lambda: SwissRoll(noise=1.0), r"data\.noise"),
        (lambda: Heartbeat(length=21), r"data\.length must be a multiple of data\.period, got 21 and 5"),
        (lambda: Mixture(weights=[0.5, 0.6]), "sum to 1"),
        (lambda: Mixture(means=[[0.0], [1.0, 2.0]]), "one length"),
    ],
)
def test_bad_input_is_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
