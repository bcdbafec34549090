"""What a chain shows on its way: its own x_t, exact x̂_0, and the closed-form laws of what comes of an x_t."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from models.diffusion import Diffusion
from models.ladder import NoiseLadder
from models.latents import branched, interpolated, progressive
from models.noise import Noise, Purpose
from models.parameterizations import Data, Score, Variance
from models.processes import GaussianProcess
from models.samplers import Ancestral, respaced
from models.schedules import Linear
from tests.oracles import GaussianData, Mixture, linear_alpha_bar, look_up

T = 40
TABLE = linear_alpha_bar(T, 1e-3, 0.3)
GAUSSIAN, TWO = GaussianData(0.4, 0.5), Mixture((0.3, 0.7), (-0.6, 0.5), (0.15, 0.25))
SHAPE = (1, 4, 4)


def chain(data: GaussianData | Mixture, network=None) -> Diffusion:
    network = network or data.data_network(TABLE)
    return Diffusion(GaussianProcess(Linear(T, 1e-3, 0.3)), Data(Variance.small), network)


def law_below(data: GaussianData, x: float, t: int, steps: int = 0) -> tuple[float, float]:
    """Mean and variance of x_0 after an ancestral chain from x at t: each of its steps is affine."""
    mean, spread = x, 0.0
    for u, s in pairwise([t, *(s for s in respaced(T, steps) if s < t)]):
        a_u, a_s = TABLE[u], TABLE[s]
        gain, offset = data.gain(a_u)
        of_data = a_s**0.5 * (1 - a_u / a_s) / (1 - a_u)
        slope = of_data * gain + (a_u / a_s) ** 0.5 * (1 - a_s) / (1 - a_u)
        mean = slope * mean + of_data * offset
        spread = slope**2 * spread + ((1 - a_s) / (1 - a_u) * (1 - a_u / a_s) if s > 0 else 0)
    return mean, spread


@pytest.mark.parametrize("steps", [0, 7])
def test_the_chain_from_an_x_t_has_the_closed_form_law(steps):
    """t = 23 is not among the seven times of the respaced chain: it goes to the next one below."""
    x = torch.full((400, *SHAPE), 1.3)
    *_, (t, x_0) = Ancestral(steps, clip=False).descend(chain(GAUSSIAN), x, 23, Noise(0, torch.arange(400)))
    mean, spread = law_below(GAUSSIAN, 1.3, 23, steps)
    assert t == 0
    assert abs(float(x_0.mean()) - mean) < 4 * (spread / x_0.numel()) ** 0.5
    assert abs(float(x_0.var()) / spread - 1) < 4 * (2 / x_0.numel()) ** 0.5


@pytest.mark.parametrize("clip", [False, True])
def test_the_walk_is_the_samplers_own_and_x_0_what_the_network_said_there(clip):
    sampler, noise, said = Ancestral(clip=clip), Noise(3, torch.arange(5)), {}

    def network(x, t, condition):
        said[int(t[0])] = (x, TWO.denoise(x, look_up(TABLE, t, x)).to(x))
        return said[int(t[0])][1]

    drawn = sampler(chain(TWO, network), SHAPE, noise)
    seen = list(progressive(chain(TWO), sampler, SHAPE, noise, [40, 30, 11, 1, 0]))
    assert [glimpse.t for glimpse in seen] == [40, 30, 11, 1, 0]
    for glimpse in seen[:-1]:
        x_t, x_0 = said[glimpse.t]
        assert torch.equal(glimpse.x_t, x_t)
        assert torch.allclose(glimpse.x_0, x_0.clamp(-1, 1) if clip else x_0, atol=1e-6)
    assert torch.equal(seen[-1].x_0, drawn)


def test_chains_that_share_an_x_t_are_independent_draws_of_what_comes_of_it():
    noise, copies = Noise(1, torch.arange(3)), 200
    found = {
        t: (x_t, x_0)
        for t, x_t, x_0 in branched(chain(GAUSSIAN), Ancestral(clip=False), SHAPE, noise, [40, 20, 5], copies)
    }
    assert list(found) == [40, 20, 5]
    for t, (x_t, x_0) in found.items():
        assert x_0.shape == (3, copies, *SHAPE)
        mean, spread = law_below(GAUSSIAN, x_t, t)
        off = (x_0 - mean[:, None]).double() / spread**0.5
        assert abs(float(off.mean())) < 4 / off.numel() ** 0.5
        assert abs(float(off.square().mean()) - 1) < 4 * (2 / off.numel()) ** 0.5
        assert len(off.flatten(2).unique(dim=1)[0]) == copies
        between = off[:, 1:] * off[:, :-1]  # of neighbouring copies; their correlation is 0
        assert abs(float(between.mean())) < 4 / between.numel() ** 0.5
    walk = dict(Ancestral(clip=False).walk(chain(GAUSSIAN), SHAPE, noise))
    assert all(torch.equal(x_t, walk[t]) for t, (x_t, _) in found.items())


def test_between_two_images_a_linear_chain_goes_straight():
    """With an affine denoiser and the noise shared, x_0 is affine in the weight, with the slope of the chain."""
    noise = Noise(2, torch.arange(4))
    ends = tuple(noise.normal(Purpose.PRIOR, SHAPE, step).clamp(-1, 1) for step in (1, 2))
    sampler, weights = Ancestral(clip=False), [0.0, 0.3, 1.0]
    x_0 = interpolated(chain(GAUSSIAN), sampler, ends, 25, weights, noise)
    assert x_0.shape == (4, 3, *SHAPE)
    assert torch.allclose(x_0[:, 1], 0.7 * x_0[:, 0] + 0.3 * x_0[:, 2], atol=1e-5)
    slope = law_below(GAUSSIAN, 1.0, 25)[0] - law_below(GAUSSIAN, 0.0, 25)[0]
    apart = slope * TABLE[25] ** 0.5 * (ends[1] - ends[0])
    assert torch.allclose(x_0[:, 2] - x_0[:, 0], apart, atol=1e-5)


def test_at_t_0_the_images_themselves_are_mixed():
    ends = torch.zeros(2, *SHAPE), torch.ones(2, *SHAPE)
    x_0 = interpolated(chain(TWO), Ancestral(), ends, 0, [0.0, 0.25, 1.0], Noise(0, torch.arange(2)))
    assert torch.equal(x_0[:, :, 0, 0, 0], torch.tensor([[0.0, 0.25, 1.0]] * 2))


def test_a_ladder_has_no_chain_to_look_into():
    ladder = Diffusion(NoiseLadder(3), Score(), lambda x, t, condition: -x)
    with pytest.raises(ValueError, match="sampler=ancestral needs a MarkovProcess"):
        next(progressive(ladder, Ancestral(), SHAPE, Noise(0, torch.arange(1)), [1]))
