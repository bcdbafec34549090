"""A learned variance: between beta~ and beta as diffusers has it, and one step of its chain."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from models.diffusion import Diffusion
from models.networks.unet import UNetConfig
from models.noise import Noise, Purpose
from models.parameterizations import Epsilon, Variance
from models.processes import GaussianProcess
from models.samplers import Ancestral
from tests.oracles import linear_alpha_bar

SHAPE = (2, 4, 4)


@pytest.mark.parametrize("t", [2, 3, 250, 999, 1000])
def test_the_law_is_that_of_diffusers(t):
    x_t, output, spread = torch.randn(
        3, 3, *SHAPE, generator=torch.Generator().manual_seed(t), dtype=torch.float64
    )
    theirs = DDPMScheduler(variance_type="learned_range", clip_sample=True)
    theirs.alphas_cumprod = torch.from_numpy(linear_alpha_bar(1000)[1:])
    theirs.one = torch.ones((), dtype=torch.float64)
    said = torch.cat((output, spread), 1)
    law = Diffusion(GaussianProcess(), Epsilon(Variance.learned), lambda x, t, condition: said).reverse(
        x_t, t, t - 1, clip=True
    )
    log_variance = theirs._get_variance(t - 1, predicted_variance=spread)
    assert torch.allclose(2 * law.std.log(), log_variance, rtol=0, atol=1e-9)
    drawn = torch.Generator().manual_seed(1)
    noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = theirs.step(said, t - 1, x_t, generator=drawn).prev_sample
    assert torch.allclose(law.sample(noise), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("times", [500, torch.tensor([500, 2, 1000])])
def test_one_is_beta_and_minus_one_is_beta_tilde(times):
    process, x = GaussianProcess(), torch.zeros(3, *SHAPE, dtype=torch.float64)
    for spread, variance in ((1.0, Variance.large), (-1.0, Variance.small)):
        learned = Epsilon(Variance.learned).reverse(process, x, x, times, times - 1, torch.full_like(x, spread))
        fixed = Epsilon(variance).reverse(process, x, x, times, times - 1)
        assert torch.allclose(learned.std, fixed.std.expand_as(x), rtol=1e-10)


def test_the_unet_gives_twice_the_channels_and_a_chain_runs_on_it():
    parameterization = Epsilon(Variance.learned)
    config = UNetConfig(8, [1, 2], blocks=1, attention=[4], dropout=0.0, groups=4)
    network = config.build(3, 8, parameterization.outputs)
    assert network(torch.zeros(2, 3, 8, 8), torch.tensor([1, 2])).shape == (2, 6, 8, 8)
    plain = config.build(3, 8)
    assert sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in plain.parameters()) == 3 * 73
    diffusion = Diffusion(GaussianProcess(), parameterization, network)
    images = Ancestral(steps=3)(diffusion, (3, 8, 8), Noise(0, torch.arange(2)))
    assert images.shape == (2, 3, 8, 8)


@pytest.mark.parametrize(("variance", "given", "needed"), [(Variance.learned, 2, 4), (Variance.small, 4, 2)])
def test_a_network_of_another_width_is_refused_by_number(variance, given, needed):
    network = lambda x, t, condition: torch.zeros(len(x), given, 4, 4)  # noqa: E731
    x = Noise(0, torch.arange(2)).normal(Purpose.PRIOR, SHAPE)
    with pytest.raises(ValueError, match=rf"{variance.name}.* needs .* {needed} channels .* got {given}"):
        Diffusion(GaussianProcess(), Epsilon(variance), network).reverse(x, 5, 4)
