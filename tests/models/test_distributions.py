"""Gaussian: scipy's densities, and the closed form of the divergence."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as some
from scipy import integrate, stats

from models.distributions import Gaussian

MEANS = some.floats(-3, 3)
STDS = some.floats(0.1, 3)


def law(mean: float, std: float) -> Gaussian:
    return Gaussian(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))


@given(MEANS, STDS, some.floats(-10, 10))
def test_log_prob_is_scipys(mean, std, x):
    found = float(law(mean, std).log_prob(torch.tensor(x, dtype=torch.float64)))
    assert abs(found - stats.norm.logpdf(x, mean, std)) < 1e-9 * max(1, abs(found))


@given(MEANS, STDS, MEANS, STDS)
def test_kl_is_the_integral_that_defines_it(mean, std, other_mean, other_std):
    p, q = stats.norm(mean, std), stats.norm(other_mean, other_std)
    expected, _ = integrate.quad(
        lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean - 12 * std, mean + 12 * std, limit=200
    )
    found = float(law(mean, std).kl(law(other_mean, other_std)))
    assert abs(found - expected) < 1e-7 * max(1, expected)


def test_a_sample_is_the_quantile_of_its_noise():
    for p in (0.01, 0.5, 0.9):
        found = float(law(2.0, 0.5).sample(torch.tensor(stats.norm.ppf(p), dtype=torch.float64)))
        assert abs(found - stats.norm.ppf(p, 2.0, 0.5)) < 1e-12
