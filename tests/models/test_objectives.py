"""SimpleLoss: with a network of known error it has a known value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.diffusion import Diffusion
from models.noise import Noise, Purpose
from models.objectives import SimpleLoss
from models.parameterizations import Data, Epsilon, PosteriorMean, Velocity
from models.processes import GaussianProcess
from models.schedules import Linear
from tests.oracles import GaussianData, linear_alpha_bar

STEPS = 8
TABLE = linear_alpha_bar(STEPS, 0.02, 0.4)
PROCESS = GaussianProcess(Linear(STEPS, 0.02, 0.4))
LAW = GaussianData(mean=0.3, std=0.6)


def affine_in_x_0(kind: type, t: int) -> tuple[float, float]:
    """The target at t is of_data · x_0 + of_image · x_t, by the papers' formulas."""
    a, before = float(TABLE[t]), float(TABLE[t - 1])
    beta = 1 - a / before
    return {
        Data: (1.0, 0.0),
        Epsilon: (-((a / (1 - a)) ** 0.5), (1 - a) ** -0.5),
        Velocity: (-((1 - a) ** -0.5), (a / (1 - a)) ** 0.5),
        PosteriorMean: (before**0.5 * beta / (1 - a), (1 - beta) ** 0.5 * (1 - before) / (1 - a)),
    }[kind]


def network_that_says(kind: type, denoise):
    """The network whose output means the x_0 that `denoise(x_t, t)` gives."""

    def network(x, t, condition):
        of_data, of_image = torch.tensor([affine_in_x_0(kind, time) for time in t.tolist()], dtype=x.dtype).T
        return of_data.reshape(-1, 1, 1, 1) * denoise(x, t) + of_image.reshape(-1, 1, 1, 1) * x

    return network


@pytest.mark.parametrize("kind", [Epsilon, Data, PosteriorMean, Velocity])
def test_the_optimal_denoiser_is_left_with_the_known_uncertainty_at_every_t(kind):
    """The loss of the best network is the variance of the target given x_t: of_data² · Var[x_0 | x_t]."""
    index = torch.arange(40_000)
    x_0 = LAW.mean + LAW.std * Noise(9, index).normal(Purpose.PRIOR, (1, 2, 2)).double()
    diffusion = Diffusion(
        PROCESS, kind(), network_that_says(kind, lambda x, t: LAW.data_network(TABLE)(x, t, None))
    )
    terms = SimpleLoss()(diffusion, x_0, Noise(0, index))
    for t in range(1, STEPS + 1):
        loss = terms.loss[terms.t == t].numpy()
        expected = affine_in_x_0(kind, t)[0] ** 2 * LAW.uncertainty(float(TABLE[t]))
        assert abs(loss.mean() - expected) < 4 * loss.std() / np.sqrt(len(loss)), f"t = {t}"


@pytest.mark.parametrize("kind", [Epsilon, Data, PosteriorMean, Velocity])
def test_a_network_that_knows_x_0_has_no_loss(kind):
    x_0 = torch.randn(64, 2, 3, 3, dtype=torch.float64)
    diffusion = Diffusion(PROCESS, kind(), network_that_says(kind, lambda x, t: x_0))
    assert float(SimpleLoss()(diffusion, x_0, Noise(0, torch.arange(64))).loss.max()) < 1e-24


def test_a_network_that_says_nothing_has_the_loss_of_the_noise():
    x_0, noise = torch.randn(5, 2, 3, 3), Noise(4, torch.arange(5))
    silent = Diffusion(PROCESS, Epsilon(), lambda x, t, condition: torch.zeros_like(x))
    expected = noise.normal(Purpose.EPSILON, (2, 3, 3)).square().mean((1, 2, 3))
    assert torch.allclose(SimpleLoss()(silent, x_0, noise).loss, expected)


def test_micro_batches_have_the_terms_of_the_whole_batch():
    x_0, noise = torch.randn(24, 2, 3, 3), Noise(0, torch.arange(100, 124))
    diffusion = Diffusion(PROCESS, Epsilon(), LAW.epsilon_network(TABLE))
    whole = SimpleLoss()(diffusion, x_0, noise)
    for size in (1, 3, 8, 24):
        slices = [slice(start, start + size) for start in range(0, 24, size)]
        parts = [SimpleLoss()(diffusion, x_0[rows], noise[rows]) for rows in slices]
        assert torch.equal(torch.cat([part.t for part in parts]), whole.t)
        assert torch.equal(torch.cat([part.loss for part in parts]), whole.loss)


def test_another_seed_is_another_loss_at_another_t():
    x_0 = torch.randn(64, 1, 2, 2)
    diffusion = Diffusion(PROCESS, Epsilon(), LAW.epsilon_network(TABLE))
    one, other = (SimpleLoss()(diffusion, x_0, Noise(seed, torch.arange(64))) for seed in (0, 1))
    assert not torch.equal(one.t, other.t)
    assert not torch.equal(one.loss, other.loss)


def test_the_condition_reaches_the_network():
    seen = []
    diffusion = Diffusion(PROCESS, Epsilon(), lambda x, t, condition: seen.append(condition) or x)
    label = torch.tensor([4, 5])
    SimpleLoss()(diffusion, torch.zeros(2, 1, 2, 2), Noise(0, torch.arange(2)), label)
    assert seen[0] is label
