"""The Fréchet distance and the moments that it is taken of, against numpy, scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from scipy.linalg import sqrtm

from trainer.metrics.frechet import frechet_distance, symmetric_root
from trainer.metrics.moments import Moments


def features(seed: int, count: int = 200, dims: int = 6) -> torch.Tensor:
    drawn = np.random.default_rng(seed)
    mixing = drawn.normal(size=(dims, dims))
    return torch.from_numpy(drawn.normal(size=(count, dims)) @ mixing + drawn.normal(size=dims)).float()


def test_moments_are_numpys():
    x = features(0)
    moments = Moments.of(x)
    assert np.allclose(moments.mean, x.double().numpy().mean(0), rtol=0, atol=1e-12)
    assert np.allclose(moments.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=0, atol=1e-10)


@given(some.lists(some.integers(1, 50), min_size=2, max_size=5))
def test_moments_add_across_batches(sizes):
    x = features(1, count=sum(sizes))
    parts = [Moments.of(part) for part in x.split(sizes)]
    joined = sum(parts[1:], start=parts[0])
    assert joined.count == len(x)
    assert torch.allclose(joined.covariance, Moments.of(x).covariance, rtol=0, atol=1e-10)


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        Moments.of(features(0, count=1)).covariance  # noqa: B018


@pytest.mark.parametrize("seed", range(5))
def test_the_distance_is_that_of_the_unsymmetric_root(seed):
    """|m - n|² + tr(A + B - 2 sqrtm(AB)), the formula as published, with scipy's root."""
    one, other = features(seed), features(seed + 100)
    m, n = one.double().numpy().mean(0), other.double().numpy().mean(0)
    a, b = (np.cov(x.double().numpy(), rowvar=False) for x in (one, other))
    expected = ((m - n) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(Moments.of(one), Moments.of(other)) == pytest.approx(expected, rel=1e-9)


def test_between_diagonal_gaussians_it_is_the_distance_of_their_parameters():
    """Closed form: |m - n|² + Σ (s_i - r_i)²."""
    s, r = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 0.1, 0.5]).double()
    m, n = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([1.0, 1.0, 2.0]).double()

    def gaussian(mean: torch.Tensor, std: torch.Tensor, count: int = 1000) -> Moments:
        outer = torch.diag(std**2) * (count - 1) + torch.outer(mean, mean) * count
        return Moments(count, mean * count, outer)

    expected = float(((m - n) ** 2).sum() + ((s - r) ** 2).sum())
    assert frechet_distance(gaussian(m, s), gaussian(n, r)) == pytest.approx(expected, rel=1e-12)


def test_from_itself_the_distance_is_0_even_with_fewer_samples_than_dims():
    for count in (200, 4):
        moments = Moments.of(features(3, count=count))
        assert abs(frechet_distance(moments, moments)) < 1e-5


def test_the_root_squares_to_the_matrix():
    covariance = Moments.of(features(4)).covariance
    root = symmetric_root(covariance)
    assert torch.allclose(root @ root, covariance, rtol=0, atol=1e-10)
    assert torch.allclose(root, root.T, rtol=0, atol=1e-12)
