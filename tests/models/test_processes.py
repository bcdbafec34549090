"""GaussianProcess: its laws follow from its transitions by composition and by Bayes' rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from models.noise import Noise
from models.processes import GaussianProcess
from models.schedules import Cosine, Linear, Quadratic, Reciprocal, Sigmoid

SCHEDULES = [Linear(40, 1e-3, 0.3), Quadratic(40, 1e-3, 0.3), Sigmoid(40, 1e-3, 0.3), Cosine(40), Reciprocal(40)]
EACH = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)


def images(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


@EACH
def test_one_transition_is_the_kernel_of_the_paper(schedule):
    process, beta = GaussianProcess(schedule), schedule.beta().numpy()
    for t in range(1, 41):
        law = process.transition(images(0.7), t, t - 1)
        assert float(law.mean) == pytest.approx((1 - beta[t - 1]) ** 0.5 * 0.7, rel=1e-10, abs=1e-15)
        assert float(law.std) == pytest.approx(beta[t - 1] ** 0.5, rel=1e-10)


@EACH
def test_the_marginal_is_the_composition_of_all_transitions(schedule):
    process, beta = GaussianProcess(schedule), schedule.beta().numpy()
    gain, variance = 1.0, 0.0
    for t in range(1, 41):
        gain, variance = gain * (1 - beta[t - 1]) ** 0.5, variance * (1 - beta[t - 1]) + beta[t - 1]
        law = process.marginal(images(-0.3), t)
        assert float(law.mean) == pytest.approx(-0.3 * gain, rel=1e-12, abs=1e-15), f"t = {t}"
        assert float(law.std) == pytest.approx(variance**0.5, rel=1e-12), f"t = {t}"


@given(some.integers(0, 38), some.integers(1, 40), some.integers(1, 40))
def test_a_long_transition_is_the_composition_of_two_shorter_ones(s, first, second):
    process = GaussianProcess(SCHEDULES[0])
    middle, t = min(s + first, 39), min(s + first + second, 40)
    one, two = process.transition(images(1.0), middle, s), process.transition(images(1.0), t, middle)
    both = process.transition(images(1.0), t, s)
    assert float(both.mean) == pytest.approx(float(one.mean * two.mean), rel=1e-10)
    assert float(both.std) ** 2 == pytest.approx(float((two.mean * one.std) ** 2 + two.std**2), rel=1e-9)


@EACH
@pytest.mark.parametrize(("t", "s"), [(2, 1), (20, 19), (20, 7), (39, 1), (40, 39), (40, 20)])
def test_the_posterior_obeys_bayes_rule(schedule, t, s):
    """q(x_s | x_t, x_0) ∝ q(x_s | x_0) q(x_t | x_s), multiplied out and integrated on a grid of x_s."""
    beta, x_0, x_t = schedule.beta().numpy(), 0.4, -0.9
    a_s, a_between = np.prod(1 - beta[:s]), np.prod(1 - beta[s:t])
    grid = np.linspace(-12, 12, 400_001)
    log_density = stats.norm.logpdf(grid, a_s**0.5 * x_0, (1 - a_s) ** 0.5)
    log_density += stats.norm.logpdf(x_t, a_between**0.5 * grid, (1 - a_between) ** 0.5)
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    mean = (density * grid).sum()
    std = ((density * (grid - mean) ** 2).sum()) ** 0.5
    law = GaussianProcess(schedule).posterior(images(x_t), images(x_0), t, s)
    assert float(law.mean) == pytest.approx(mean, abs=1e-9)
    assert float(law.std) == pytest.approx(std, rel=1e-8)


@EACH
def test_the_posterior_at_0_is_the_data_exactly(schedule):
    process, x_0 = GaussianProcess(schedule), images(0.1, -0.7)
    for t in (1, 2, 17, 40):
        law = process.posterior(images(3.0, -2.0), x_0, t, 0)
        assert torch.equal(law.mean, x_0), f"t = {t}"
        assert float(law.std) == 0, f"t = {t}"


@EACH
def test_one_time_for_all_equals_a_time_for_each(schedule):
    process, x_0, x_t = GaussianProcess(schedule), torch.randn(5, 2, 3, 3), torch.randn(5, 2, 3, 3)
    for t, s in ((1, 0), (2, 1), (23, 11), (40, 39)):
        times, earlier = torch.full((5,), t), torch.full((5,), s)
        pairs = [
            (process.marginal(x_0, t), process.marginal(x_0, times)),
            (process.transition(x_0, t, s), process.transition(x_0, times, earlier)),
            (process.posterior(x_t, x_0, t, s), process.posterior(x_t, x_0, times, earlier)),
        ]
        for one, each in pairs:
            assert torch.equal(one.mean, each.mean)
            assert torch.equal(one.std.expand_as(each.std), each.std)
        assert torch.equal(process.epsilon(x_t, x_0, t), process.epsilon(x_t, x_0, times))


def test_a_batch_of_mixed_times_gives_each_image_its_own_law():
    process, x_0, t = GaussianProcess(SCHEDULES[0]), torch.randn(4, 1, 2, 2), torch.tensor([40, 1, 17, 2])
    law = process.marginal(x_0, t)
    for row, time in enumerate(t.tolist()):
        alone = process.marginal(x_0[row : row + 1], time)
        assert torch.equal(law.mean[row], alone.mean[0])
        assert float(law.std[row]) == float(alone.std)


@given(some.integers(1, 40), some.floats(-1, 1), some.floats(-3, 3))
def test_epsilon_is_the_noise_that_the_marginal_was_sampled_with(t, x_0, noise):
    process = GaussianProcess(SCHEDULES[0])
    x_t = process.marginal(images(x_0), t).sample(images(noise))
    assert float(process.epsilon(x_t, images(x_0), t)) == pytest.approx(noise, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_laws_come_in_the_type_of_the_images(dtype):
    process, x = GaussianProcess(), torch.ones(2, 1, 2, 2, dtype=dtype)
    for t in (3, torch.tensor([3, 4])):
        for law in (process.marginal(x, t), process.transition(x, t, t - 1), process.posterior(x, x, t, t - 1)):
            assert law.mean.dtype == law.std.dtype == dtype


def test_tables_lose_no_precision():
    """1 - alpha-bar_1 is 1e-4: of it float32 would keep three digits, float64 keeps twelve."""
    process = GaussianProcess()
    assert process.alpha_bar(1000).dtype == process.alpha_bar(torch.tensor([1000])).dtype == torch.float64
    assert 1 - float(process.alpha_bar(1)) == pytest.approx(1e-4, rel=1e-12)
    assert float(process.transition(images(1.0), 1, 0).std) ** 2 == pytest.approx(1e-4, rel=1e-11)


def test_the_prior_is_where_the_process_ends():
    process, noise = GaussianProcess(), Noise(0, torch.arange(500))
    x = process.prior(noise, (1, 8, 8)).double().flatten().numpy()
    assert stats.kstest(x, "norm").pvalue > 1e-4
    last = process.marginal(images(1.0), 1000)
    assert abs(float(last.mean)) < 0.0064
    assert float(last.std) == pytest.approx(1, abs=3e-5)


@pytest.mark.parametrize("steps", [1, 4, 1000])
def test_times_are_uniform_on_1_to_T(steps):
    t = GaussianProcess(Linear(steps)).times(Noise(0, torch.arange(100_000)))
    counts = torch.bincount(t, minlength=steps + 1)
    assert len(counts) == steps + 1
    assert int(counts[0]) == 0
    assert steps == 1 or stats.chisquare(counts[1:].numpy()).pvalue > 1e-4
