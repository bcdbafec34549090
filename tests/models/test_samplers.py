"""Samplers: diffusers' steps, the exact law of whole chains, and one picture per number."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from models.diffusion import Diffusion
from models.noise import Noise, Purpose
from models.parameterizations import Data, Epsilon, Variance
from models.processes import GaussianProcess
from models.samplers import Ancestral, Ddim, Sampler, respaced
from models.schedules import Linear
from tests.oracles import GaussianData, Mixture, linear_alpha_bar

SHAPE = (3, 4, 4)
VARIANCES = {Variance.small: "fixed_small", Variance.large: "fixed_large"}
WIDE = Mixture((0.4, 0.6), (-0.9, 0.8), (0.2, 0.3))  # its x_0 often lie outside [-1, 1], where clipping shows
CLIP = pytest.mark.parametrize("clip", [True, False])


@dataclass(frozen=True)
class Step:
    """One step of a chain: x_t, what the network said, and the x_s that the sampler made of them."""

    t: int
    x_t: torch.Tensor
    output: torch.Tensor
    x_s: torch.Tensor


def steps_of(sampler: Sampler, parameterization: Epsilon, noise: Noise) -> list[Step]:
    """Every step of a chain under the papers' schedule, as the network saw them go by."""
    optimal, seen = WIDE.epsilon_network(linear_alpha_bar(1000)), []

    def network(x, t, condition):
        seen.append((int(t[0]), x, optimal(x, t, condition).float()))
        return seen[-1][2]

    last = sampler(Diffusion(GaussianProcess(), parameterization, network), SHAPE, noise)
    arrived = [*(x for _, x, _ in seen[1:]), last]
    return [Step(*left, x_s) for left, x_s in zip(seen, arrived, strict=True)]


def in_float64(scheduler):
    """diffusers' scheduler with its tables in float64, so that its formulas are compared and not its rounding."""
    scheduler.alphas_cumprod = torch.from_numpy(linear_alpha_bar(1000)[1:])
    scheduler.one = scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


@pytest.fixture
def their_noise(monkeypatch):
    """What diffusers' schedulers draw next, in the place of their own generator."""
    drawn = []
    for name in ("scheduling_ddpm", "scheduling_ddim"):
        monkeypatch.setattr(f"diffusers.schedulers.{name}.randn_tensor", lambda *args, **kwargs: drawn.pop())
    return drawn


@CLIP
@pytest.mark.parametrize("variance", list(VARIANCES))
def test_every_ancestral_step_is_that_of_diffusers(variance, clip, their_noise):
    theirs, noise = DDPMScheduler(variance_type=VARIANCES[variance], clip_sample=clip), Noise(5, torch.arange(3))
    in_float64(theirs)
    for step in steps_of(Ancestral(clip=clip), Epsilon(variance), noise):
        their_noise[:] = [noise.normal(Purpose.REVERSE, SHAPE, step=step.t).double()]
        expected = theirs.step(step.output.double(), step.t - 1, step.x_t.double()).prev_sample
        assert torch.allclose(step.x_s.double(), expected, rtol=0, atol=2e-6), f"t = {step.t}"


def test_every_ancestral_step_is_that_of_diffusers_as_shipped_in_float32(their_noise):
    theirs, noise = DDPMScheduler(variance_type="fixed_small", clip_sample=True), Noise(5, torch.arange(3))
    for step in steps_of(Ancestral(), Epsilon(Variance.small), noise):
        their_noise[:] = [noise.normal(Purpose.REVERSE, SHAPE, step=step.t)]
        expected = theirs.step(step.output, step.t - 1, step.x_t).prev_sample
        # Their 1 - alpha-bar is a difference of float32 numbers near 1: few digits are left in the first steps.
        assert torch.allclose(step.x_s, expected, rtol=0, atol=1e-4 if step.t < 20 else 1e-5), f"t = {step.t}"


@CLIP
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [2, 10, 125])
def test_every_ddim_step_is_that_of_diffusers(steps, eta, clip, their_noise):
    theirs, noise = DDIMScheduler(1000, clip_sample=clip, set_alpha_to_one=True), Noise(6, torch.arange(3))
    in_float64(theirs).set_timesteps(steps)
    for step in steps_of(Ddim(steps=steps, eta=eta, clip=clip), Epsilon(), noise):
        their_noise[:] = [noise.normal(Purpose.REVERSE, SHAPE, step=step.t).double()]
        output, x_t = step.output.double(), step.x_t.double()
        # Ours takes the noise anew from the clipped x_0, as guided-diffusion does.
        found = theirs.step(output, step.t - 1, x_t, eta=eta, use_clipped_model_output=True)
        assert torch.allclose(step.x_s.double(), found.prev_sample, rtol=0, atol=2e-5), f"t = {step.t}"


def test_the_last_steps_of_ddim_in_full_are_those_of_diffusers(their_noise):
    theirs, noise = DDIMScheduler(1000, clip_sample=True, set_alpha_to_one=True), Noise(6, torch.arange(3))
    in_float64(theirs).set_timesteps(1000)
    for step in steps_of(Ddim(steps=1000, eta=1.0), Epsilon(), noise):
        their_noise[:] = [noise.normal(Purpose.REVERSE, SHAPE, step=step.t).double()]
        output, x_t = step.output.double(), step.x_t.double()
        found = theirs.step(output, step.t - 1, x_t, eta=1.0, use_clipped_model_output=True)
        assert torch.allclose(step.x_s.double(), found.prev_sample, rtol=0, atol=2e-6), f"t = {step.t}"


@CLIP
def test_the_mixture_of_these_chains_makes_clipping_matter(clip):
    ends = steps_of(Ancestral(clip=clip, steps=100), Epsilon(), Noise(5, torch.arange(3)))[-1].x_s
    assert (float(ends.abs().max()) > 1.01) is not clip


def moments_of_chain(law, table, times, eta, variance) -> tuple[float, float]:
    """Mean and variance of x_0 after a chain with the exact denoiser of Gaussian data: every step is affine.

    eta None: ancestral with the posterior's mean; else DDIM, Eq. 12 of Song et al. 2021.
    """
    mean, spread = 0.0, 1.0
    for t, s in pairwise(times):
        a_t, a_s = table[t], table[s]
        gain, offset = law.gain(a_t)
        step = 1 - a_t / a_s
        posterior = (1 - a_s) / (1 - a_t) * step
        if eta is None:
            of_data, of_image = a_s**0.5 * step / (1 - a_t), (a_t / a_s) ** 0.5 * (1 - a_s) / (1 - a_t)
            drawn = posterior if variance is Variance.small else step
        else:
            drawn = eta**2 * posterior
            of_image = ((1 - a_s - drawn) / (1 - a_t)) ** 0.5
            of_data = a_s**0.5 - of_image * a_t**0.5
        slope = of_data * gain + of_image
        mean = slope * mean + of_data * offset
        spread = slope**2 * spread + (drawn if s > 0 else 0)
    return mean, spread


CHAINS = [
    (Ancestral(clip=False), Variance.small, None),
    (Ancestral(clip=False), Variance.large, None),
    (Ancestral(steps=7, clip=False), Variance.small, None),
    (Ancestral(steps=7, clip=False), Variance.large, None),
    (Ddim(steps=40, clip=False), Variance.large, 0.0),
    (Ddim(steps=7, clip=False), Variance.large, 0.0),
    (Ddim(steps=7, eta=0.6, clip=False), Variance.large, 0.6),
    (Ddim(steps=40, eta=1.0, clip=False), Variance.large, 1.0),
]


@pytest.mark.parametrize(("sampler", "variance", "eta"), CHAINS)
@pytest.mark.parametrize("parameterization", [Epsilon, Data])
def test_the_law_of_a_chain_on_gaussian_data_is_the_closed_form(sampler, variance, eta, parameterization):
    law, table = GaussianData(mean=0.4, std=0.5), linear_alpha_bar(40, 1e-3, 0.3)
    network = law.epsilon_network(table) if parameterization is Epsilon else law.data_network(table)
    diffusion = Diffusion(GaussianProcess(Linear(40, 1e-3, 0.3)), parameterization(variance), network)
    x = sampler(diffusion, (1, 8, 8), Noise(1, torch.arange(500))).double().flatten().numpy()
    times = [40 * i // (sampler.steps or 40) for i in range(sampler.steps or 40, -1, -1)]
    mean, spread = moments_of_chain(law, table, times, eta, variance)
    assert abs(x.mean() - mean) < 4 * (spread / len(x)) ** 0.5
    assert abs(x.var() / spread - 1) < 4 * (2 / len(x)) ** 0.5
    assert stats.kstest(x, "norm", (mean, spread**0.5)).pvalue > 1e-4


@pytest.mark.parametrize(
    "sampler", [Ancestral(clip=False), Ddim(steps=300, clip=False), Ddim(steps=300, eta=1.0, clip=False)]
)
def test_samples_with_the_exact_denoiser_of_a_mixture_are_that_mixture(sampler):
    data = Mixture(weights=(0.3, 0.7), means=(-0.6, 0.5), stds=(0.15, 0.25))
    table = linear_alpha_bar(300, 1e-4, 0.06)
    diffusion = Diffusion(GaussianProcess(Linear(300, 1e-4, 0.06)), Epsilon(), data.epsilon_network(table))
    x = sampler(diffusion, (1, 4, 4), Noise(2, torch.arange(250))).double().flatten().numpy()
    assert stats.kstest(x, data.cdf).pvalue > 1e-4
    wrong = Mixture((0.4, 0.6), data.means, data.stds)  # the test can fail: a tenth of the mass in the other mode
    assert stats.kstest(x, wrong.cdf).pvalue < 1e-4


@pytest.mark.parametrize("sampler", [Ancestral(), Ancestral(steps=3), Ddim(steps=4), Ddim(steps=4, eta=1.0)])
def test_image_i_is_the_same_bits_in_any_batch(sampler):
    network = GaussianData(0.4, 0.5).epsilon_network(linear_alpha_bar(10))
    diffusion = Diffusion(GaussianProcess(Linear(10)), Epsilon(), network)
    whole = sampler(diffusion, SHAPE, Noise(3, torch.arange(13)))
    for size in (1, 2, 5, 13):
        parts = [
            sampler(diffusion, SHAPE, Noise(3, torch.arange(start, min(start + size, 13))))
            for start in range(0, 13, size)
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_the_condition_reaches_the_network_at_every_step():
    seen, label = [], torch.tensor([1, 2])
    diffusion = Diffusion(
        GaussianProcess(Linear(6)), Data(), lambda x, t, condition: seen.append((int(t[0]), condition)) or x
    )
    Ancestral()(diffusion, SHAPE, Noise(0, torch.arange(2)), label)
    Ddim(steps=3)(diffusion, SHAPE, Noise(0, torch.arange(2)), label)
    assert [t for t, _ in seen] == [6, 5, 4, 3, 2, 1, 6, 4, 2]
    assert all(condition is label for _, condition in seen)


def test_a_clipped_chain_ends_within_the_pixels_range():
    diffusion = Diffusion(GaussianProcess(Linear(10)), Epsilon(), lambda x, t, condition: -2 * x)
    for sampler in (Ancestral(), Ddim(steps=5)):
        assert float(sampler(diffusion, SHAPE, Noise(0, torch.arange(2))).abs().max()) <= 1


def test_sampling_keeps_no_graph():
    weight = torch.ones(1, requires_grad=True)
    diffusion = Diffusion(GaussianProcess(Linear(3)), Data(), lambda x, t, condition: weight * x)
    for sampler in (Ancestral(), Ddim(steps=2)):
        assert not sampler(diffusion, SHAPE, Noise(0, torch.arange(2))).requires_grad


@given(some.integers(1, 1000), some.data())
def test_respaced_times_fall_from_T_to_0_in_even_strides(total, data):
    steps = data.draw(some.integers(1, total))
    times = respaced(total, steps)
    strides = -np.diff(times)
    assert times[0] == total
    assert times[-1] == 0
    assert len(strides) == steps
    assert strides.min() >= 1
    assert strides.max() - strides.min() <= 1


def test_no_number_of_steps_means_all_of_them():
    assert respaced(5, 0) == [5, 4, 3, 2, 1, 0]


def test_values_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match=r"sampler\.steps .*-1"):
        Ancestral(steps=-1)
    with pytest.raises(ValueError, match=r"sampler\.eta .*1\.5"):
        Ddim(eta=1.5)
    with pytest.raises(ValueError, match=r"sampler\.steps must be at most the process's 10 steps, got 11"):
        respaced(10, 11)
