"""Diffusion.score: the exact score of Gaussian and mixture data, in every parameterization."""

from __future__ import annotations

import pytest
import torch

from models.diffusion import Diffusion
from models.ladder import NoiseLadder
from models.parameterizations import Data, Epsilon, PosteriorMean, ScaledScore, Score, Velocity
from models.pixels import PixelRange
from models.processes import GaussianProcess
from models.schedules import Linear, Reciprocal

MIXTURE = ((0.3, 0.7), (-0.6, 0.5), (0.15, 0.25))
PROCESSES = {"ladder": NoiseLadder(8, 2.0, 0.05), "gaussian": GaussianProcess(Linear(8, 1e-3, 0.3))}


def exact_score(x: torch.Tensor, signal: float, sigma: float) -> torch.Tensor:
    """∇ log q(x_t) of the mixture, by automatic differentiation of its density."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        weights, means, stds = (torch.tensor(v, dtype=torch.float64) for v in MIXTURE)
        law = torch.distributions.Normal(signal * means, (signal**2 * stds**2 + sigma**2).sqrt())
        density = torch.logsumexp(torch.log(weights) + law.log_prob(x[..., None]), -1)
        return torch.autograd.grad(density.sum(), x)[0]


def coefficients(process, t: int) -> tuple[float, float]:
    """signal_t and sigma_t, from what the process says of a unit image."""
    law = process.marginal(torch.ones(1, 1, 1, 1, dtype=torch.float64), t)
    return float(law.mean), float(law.std)


def network(process, kind):
    """The optimal network of each kind, made of the exact score by the definitions of the papers."""

    def says(x, t, condition):
        signal, sigma = coefficients(process, int(t[0]))
        score = exact_score(x, signal, sigma)
        x_0, epsilon = (x + sigma**2 * score) / signal, -sigma * score
        if kind is PosteriorMean:
            return process.posterior(x, x_0, int(t[0]), int(t[0]) - 1).mean
        outputs = {
            Score: score,
            ScaledScore: sigma * score,
            Epsilon: epsilon,
            Data: x_0,
            Velocity: signal * epsilon - sigma * x_0,
        }
        return outputs[kind]

    return says


CASES = [("ladder", Score), ("ladder", ScaledScore)]
CASES += [("gaussian", kind) for kind in (Score, ScaledScore, Epsilon, Data, PosteriorMean, Velocity)]


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("t", [2, 5, 8])
def test_the_score_is_that_of_the_noised_data(name, kind, t):
    process = PROCESSES[name]
    diffusion = Diffusion(process, kind(), network(process, kind))
    x = torch.randn(6, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(t))
    expected = exact_score(x, *coefficients(process, t))
    for time in (t, torch.full((6,), t)):
        assert torch.allclose(diffusion.score(x, time), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [Score, ScaledScore])
@pytest.mark.parametrize("name", PROCESSES)
def test_x_0_and_the_target_undo_each_other(name, kind):
    process, t = PROCESSES[name], torch.tensor([1, 4, 8])
    x_0, epsilon = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    x_t = process.marginal(x_0, t).sample(epsilon)
    target = kind().target(process, x_0, x_t, epsilon, t)
    diffusion = Diffusion(process, kind(), lambda x, t, condition: target)
    assert torch.allclose(diffusion.x_0(x_t, t), x_0, rtol=0, atol=1e-9)


def test_the_target_is_the_score_of_the_kernel():
    process, t = PROCESSES["ladder"], 3
    sigma = float(process.sigma(t))
    x_0, epsilon = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    x_t = x_0 + sigma * epsilon
    kernel = (x_0 - x_t) / sigma**2
    assert torch.allclose(Score().target(process, x_0, x_t, epsilon, t), kernel, rtol=1e-9)
    assert torch.allclose(ScaledScore().target(process, x_0, x_t, epsilon, t), sigma * kernel, rtol=1e-9)


@pytest.mark.parametrize("pixels", [PixelRange.signed, PixelRange.unit])
def test_a_clipped_x_0_lies_within_the_range_of_the_pixels(pixels):
    diffusion = Diffusion(NoiseLadder(), Score(), lambda x, t, condition: 1e6 * x, pixels)
    x_0 = diffusion.x_0(torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2), 5, clip=True)
    assert x_0.flatten().tolist() == [pixels.low, 1.0]


def test_x_0_by_a_signal_that_is_gone_is_refused():
    with pytest.raises(ValueError, match=r"parameterization=Score recovers x_0.* t = 10 .*Reciprocal"):
        Diffusion(GaussianProcess(Reciprocal(10)), Score(), lambda x, t, condition: x)
