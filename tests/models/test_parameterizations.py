"""Parameterizations: four ways to say the same thing, and the two fixed variances."""

from __future__ import annotations

import itertools

import pytest
import torch

from models.diffusion import Diffusion
from models.parameterizations import Data, Epsilon, PosteriorMean, Variance, Velocity
from models.processes import GaussianProcess
from models.schedules import Linear, Reciprocal
from tests.oracles import linear_alpha_bar

ALL = [Epsilon, Data, PosteriorMean, Velocity]
TIMES = [1, 2, 3, 250, 999, 1000]
PROCESS = GaussianProcess()


def triple(t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x_0, the noise, and the x_t they make; by numpy's table, in float64."""
    generator = torch.Generator().manual_seed(t)
    x_0, noise = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    a = float(linear_alpha_bar(1000)[t])
    return x_0, noise, a**0.5 * x_0 + (1 - a) ** 0.5 * noise


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("t", TIMES)
def test_x_0_undoes_target(kind, t):
    x_0, noise, x_t = triple(t)
    for time in (t, torch.full((3,), t)):
        target = kind().target(PROCESS, x_0, x_t, noise, time)
        assert torch.allclose(kind().x_0(PROCESS, target, x_t, time), x_0, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(ALL, 2)))
def test_an_output_says_the_same_in_any_parameterization(one, other):
    """Any output, not only a perfect one: read by one, said again by the other, it means the same x_0."""
    for t in TIMES:
        _, _, x_t = triple(t)
        output = torch.randn(3, 2, 4, 4, dtype=torch.float64)
        meant = one().x_0(PROCESS, output, x_t, t)
        said = other().target(PROCESS, meant, x_t, PROCESS.epsilon(x_t, meant, t), t)
        scale = meant.abs().max()
        assert torch.allclose(other().x_0(PROCESS, said, x_t, t), meant, rtol=0, atol=float(1e-8 * scale))


@pytest.mark.parametrize("t", TIMES)
def test_targets_are_the_formulas_of_the_papers(t):
    x_0, noise, x_t = triple(t)
    table = linear_alpha_bar(1000)
    a, before = float(table[t]), float(table[t - 1])
    beta = 1 - a / before
    # Ho et al. 2020, Eq. 7; Salimans & Ho 2022, appendix D.
    mean = before**0.5 * beta / (1 - a) * x_0 + (1 - beta) ** 0.5 * (1 - before) / (1 - a) * x_t
    expected = {
        Epsilon: noise,
        Data: x_0,
        PosteriorMean: mean,
        Velocity: a**0.5 * noise - (1 - a) ** 0.5 * x_0,
    }
    for kind, target in expected.items():
        assert torch.allclose(kind().target(PROCESS, x_0, x_t, noise, t), target, rtol=0, atol=1e-9), kind


@pytest.mark.parametrize("t", TIMES)
def test_the_mean_of_the_reverse_law_in_terms_of_the_noise_is_equation_11(t):
    _, noise, x_t = triple(t)
    table = linear_alpha_bar(1000)
    a, beta = float(table[t]), 1 - float(table[t] / table[t - 1])
    expected = (x_t - beta / (1 - a) ** 0.5 * noise) / (1 - beta) ** 0.5
    law = Diffusion(PROCESS, Epsilon(), lambda x, t, condition: noise).reverse(x_t, t, t - 1)
    assert torch.allclose(law.mean, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("t", [2, 500, 1000])
def test_the_variance_is_beta_tilde_or_beta(kind, t):
    x_0, _, x_t = triple(t)
    table = linear_alpha_bar(1000)
    beta = 1 - float(table[t] / table[t - 1])
    posterior = beta * float((1 - table[t - 1]) / (1 - table[t]))
    for variance, expected in ((Variance.small, posterior), (Variance.large, beta)):
        std = kind(variance=variance).reverse(PROCESS, x_t, x_0, t, t - 1).std
        assert float(std) ** 2 == pytest.approx(expected, rel=1e-9)


def test_dividing_by_a_signal_that_is_gone_is_refused():
    with pytest.raises(ValueError, match=r"parameterization=Epsilon .*alpha-bar_t.* t = 10 .*Reciprocal"):
        Diffusion(GaussianProcess(Reciprocal(10)), Epsilon(), lambda x, t, condition: x)


@pytest.mark.parametrize("kind", [Data, PosteriorMean, Velocity])
def test_the_others_need_no_signal(kind):
    process = GaussianProcess(Reciprocal(10))
    Diffusion(process, kind(), lambda x, t, condition: x)
    x_0, noise = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    for t in (1, 5, 10):
        x_t = process.marginal(x_0, t).sample(noise)
        target = kind().target(process, x_0, x_t, noise, t)
        assert torch.allclose(kind().x_0(process, target, x_t, t), x_0, rtol=0, atol=1e-12)


def test_a_clipped_x_0_lies_within_the_pixels_range():
    diffusion = Diffusion(GaussianProcess(Linear(10)), Data(), lambda x, t, condition: 3 * x)
    x = torch.tensor([-1.0, -0.2, 0.2, 1.0]).reshape(1, 1, 2, 2)
    assert torch.allclose(diffusion.x_0(x, 3, clip=True), (3 * x).clamp(-1, 1))
    assert torch.allclose(diffusion.x_0(x, 3), 3 * x)
