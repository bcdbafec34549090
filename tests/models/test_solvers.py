"""Heun and DPM-Solver++(2M): their order on an exact denoiser, diffusers' steps, and one picture per number."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler
from scipy import stats

from models.diffusion import Diffusion
from models.noise import Noise
from models.parameterizations import Data, Epsilon
from models.processes import GaussianProcess
from models.samplers import Ddim
from models.schedules import Linear, Reciprocal
from models.solvers import DpmSolver2M, Heun, down_to_the_first
from tests.oracles import GaussianData, Mixture, linear_alpha_bar

SHAPE = (2, 3, 3)
BOTH = pytest.mark.parametrize("kind", [Heun, DpmSolver2M])


class DoubleProcess(GaussianProcess):
    """Starts chains in float64, so that the error of a solver can be seen below that of float32."""

    def prior(self, noise, shape):
        return super().prior(noise, shape).double()


def flow(law: GaussianData, table: np.ndarray, x_t: torch.Tensor, t: int, s: int) -> torch.Tensor:
    """Where the exact probability flow of Gaussian data takes x_t: to the same quantile of the law at s."""
    (mean_t, std_t), (mean_s, std_s) = (
        (table[u] ** 0.5 * law.mean, (table[u] * law.std**2 + 1 - table[u]) ** 0.5) for u in (t, s)
    )
    return mean_s + std_s / std_t * (x_t - mean_t)


@pytest.mark.parametrize(("sampler", "order"), [(Ddim, 1), (Heun, 2), (DpmSolver2M, 2)])
@pytest.mark.parametrize("law", [GaussianData(0.4, 0.5), GaussianData(-0.2, 0.8)])
def test_the_error_falls_with_the_order_of_the_method(sampler, order, law):
    """Under the papers' schedule, against the exact flow; T - 1 = 1024 so that strides are even.

    The second-order methods end in one jump from t = 1 to x̂_0, the same for any number of steps, which the exact
    flow makes here too. DDIM takes even strides to 0 instead, and so 1024 steps divide evenly as well.
    """
    steps, table = 1025 if order == 2 else 1024, linear_alpha_bar(1025 if order == 2 else 1024)
    process, noise = DoubleProcess(Linear(steps)), Noise(0, torch.arange(8))
    diffusion, x = Diffusion(process, Data(), law.data_network(table)), process.prior(noise, SHAPE)
    if order == 2:
        expected = law.denoise(flow(law, table, x, steps, 1), torch.tensor(table[1]))
    else:
        expected = flow(law, table, x, steps, 0)
    errors = []
    for count in (64, 128, 256):
        found = sampler(steps=count + order - 1, clip=False)(diffusion, SHAPE, noise)
        errors.append(float((found - expected).abs().max()))
    measured = -np.polyfit(np.log([64, 128, 256]), np.log(errors), 1)[0]
    assert measured == pytest.approx(order, abs=0.2), errors


def chain(sampler, data, table, noise):
    """The states and outputs of a chain, as the network saw them go by, and where it ended."""
    optimal, seen = data.epsilon_network(table), []

    def network(x, t, condition):
        seen.append((int(t[0]), x, optimal(x, t, condition)))
        return seen[-1][2]

    return seen, sampler(Diffusion(DoubleProcess(Linear(1000)), Epsilon(), network), SHAPE, noise)


@pytest.mark.parametrize("steps", [2, 4, 10, 28, 112])
def test_every_step_of_dpm_solver_is_that_of_diffusers(steps):
    data, table = Mixture((0.4, 0.6), (-0.9, 0.8), (0.2, 0.3)), linear_alpha_bar(1000)
    seen, found = chain(DpmSolver2M(steps=steps, clip=False), data, table, Noise(6, torch.arange(3)))
    theirs = DPMSolverMultistepScheduler(1000, beta_schedule="linear", final_sigmas_type="zero")
    theirs.alphas_cumprod = torch.from_numpy(table[1:])
    times = [t - 1 for t, _, _ in seen]
    theirs.set_timesteps(timesteps=times)
    a = table[[*(t + 1 for t in times), 0]]
    theirs.sigmas = torch.from_numpy(np.sqrt((1 - a) / a))
    arrived = [*(x for _, x, _ in seen[1:]), found]
    for (t, x_t, output), x_s in zip(seen, arrived, strict=True):
        expected = theirs.step(output, torch.tensor(t - 1), x_t).prev_sample
        assert torch.allclose(x_s, expected, rtol=0, atol=1e-6), f"t = {t}"  # theirs rounds x_t to float32


@pytest.mark.parametrize("steps", [2, 4, 10, 28, 112])
def test_a_whole_chain_of_heun_is_that_of_diffusers(steps):
    data, table = Mixture((0.4, 0.6), (-0.9, 0.8), (0.2, 0.3)), linear_alpha_bar(1000)
    seen, found = chain(Heun(steps=steps, clip=False), data, table, Noise(6, torch.arange(3)))
    theirs = HeunDiscreteScheduler(1000, beta_schedule="linear")
    theirs.set_timesteps(steps)
    times = down_to_the_first(1000, steps)
    sigma = np.sqrt((1 - table[times]) / table[times])
    twice = np.concatenate((sigma[:1], np.repeat(sigma[1:-1], 2), sigma[-1:]))
    theirs.sigmas = torch.from_numpy(twice)
    theirs.timesteps = torch.tensor([times[0] - 1, *np.repeat(np.array(times[1:-1]) - 1, 2)])
    x = seen[0][1] * (1 + sigma[0] ** 2) ** 0.5
    for t, x_t, output in seen:
        scale = float((1 / table[t]) ** 0.5)
        assert torch.allclose(x_t * scale, x, rtol=1e-9, atol=1e-9), f"t = {t}"
        x = theirs.step(output, theirs.timesteps[theirs.step_index or 0], x).prev_sample
    assert torch.allclose(found, x, rtol=0, atol=1e-9)


@BOTH
def test_samples_with_the_exact_denoiser_of_a_mixture_are_that_mixture(kind):
    data = Mixture(weights=(0.3, 0.7), means=(-0.6, 0.5), stds=(0.15, 0.25))
    table = linear_alpha_bar(1000)
    diffusion = Diffusion(GaussianProcess(), Epsilon(), data.epsilon_network(table))
    x = kind(steps=100, clip=False)(diffusion, (1, 4, 4), Noise(2, torch.arange(250))).double().flatten().numpy()
    assert stats.kstest(x, data.cdf).pvalue > 1e-4


@BOTH
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 0])
def test_any_number_of_steps_will_do_and_image_i_is_the_same_bits_in_any_batch(kind, steps):
    network = GaussianData(0.4, 0.5).epsilon_network(linear_alpha_bar(10))
    diffusion = Diffusion(GaussianProcess(Linear(10)), Epsilon(), network)
    whole = kind(steps=steps)(diffusion, SHAPE, Noise(3, torch.arange(7)))
    parts = [kind(steps=steps)(diffusion, SHAPE, Noise(3, torch.arange(start, start + 1))) for start in range(7)]
    assert torch.equal(torch.cat(parts), whole)
    assert bool(whole.isfinite().all())
    assert float(whole.abs().max()) <= 1


@BOTH
def test_the_condition_reaches_the_network_and_no_graph_is_kept(kind):
    weight, seen, label = torch.ones(1, requires_grad=True), [], torch.tensor([1, 2])
    network = lambda x, t, condition: seen.append(condition) or weight * x  # noqa: E731
    diffusion = Diffusion(GaussianProcess(Linear(6)), Data(), network)
    assert not kind(steps=4)(diffusion, SHAPE, Noise(0, torch.arange(2)), label).requires_grad
    assert len(seen) == (7 if kind is Heun else 4)
    assert all(condition is label for condition in seen)


def test_a_signal_that_is_gone_is_no_obstacle_to_dpm_solver_and_refused_by_heun():
    law, steps = GaussianData(0.4, 0.5), 10
    table = np.arange(steps, -1, -1) / steps
    diffusion = Diffusion(GaussianProcess(Reciprocal(steps)), Data(), law.data_network(table))
    assert bool(DpmSolver2M(steps=5)(diffusion, SHAPE, Noise(0, torch.arange(2))).isfinite().all())
    with pytest.raises(ValueError, match=r"sampler=heun divides .*alpha-bar_T.* Reciprocal"):
        Heun(steps=5)(diffusion, SHAPE, Noise(0, torch.arange(2)))


@pytest.mark.parametrize(("total", "steps"), [(1000, 1), (1000, 2), (1000, 37), (1000, 0), (1, 1), (2, 2), (1, 0)])
def test_times_go_from_T_through_1_to_0(total, steps):
    times = down_to_the_first(total, steps)
    assert (times[0], times[-1], len(times)) == (total, 0, (steps or total) + 1)
    assert all(t > s for t, s in pairwise(times))
    assert steps == 1 or times[-2] == 1


@BOTH
def test_more_steps_than_there_are_is_refused(kind):
    diffusion = Diffusion(GaussianProcess(Linear(10)), Data(), lambda x, t, condition: x)
    with pytest.raises(ValueError, match=r"sampler\.steps must be at most the process's 10 steps, got 11"):
        kind(steps=11)(diffusion, SHAPE, Noise(0, torch.arange(1)))
