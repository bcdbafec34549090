"""Bernoulli and BinomialProcess, by enumeration of every path of zeros and ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from models.distributions import Bernoulli
from models.noise import Noise, Purpose
from models.processes import BinomialProcess
from models.schedules import Linear, Reciprocal

STEPS = 6
SCHEDULES = [Linear(STEPS, 0.05, 0.4), Reciprocal(STEPS)]
EACH = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
RATES = pytest.mark.parametrize("rate", [0.5, 0.2])
PROBABILITIES = some.floats(0.01, 0.99)


def bits(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def path_probability(path: tuple[int, ...], beta: np.ndarray, rate: float) -> float:
    """q(x_1 .. x_T | x_0) by the paper's kernel, one step after the other; `path` starts with x_0."""
    probability = 1.0
    for t, (before, after) in enumerate(itertools.pairwise(path)):
        one = before * (1 - beta[t]) + rate * beta[t]
        probability *= one if after else 1 - one
    return probability


def enumerated(schedule, rate: float, x_0: int) -> list[tuple[tuple[int, ...], float]]:
    """Every path from x_0 with its probability."""
    beta = schedule.beta().numpy()
    paths = [(x_0, *rest) for rest in itertools.product((0, 1), repeat=STEPS)]
    return [(path, path_probability(path, beta, rate)) for path in paths]


@EACH
@RATES
@pytest.mark.parametrize("x_0", [0, 1])
def test_marginals_are_the_sums_over_paths(schedule, rate, x_0):
    process, paths = BinomialProcess(schedule, rate), enumerated(schedule, rate, x_0)
    for t in range(1, STEPS + 1):
        expected = sum(probability for path, probability in paths if path[t])
        assert float(process.marginal(bits(x_0), t).probability) == pytest.approx(expected, abs=1e-13)


@EACH
@RATES
@pytest.mark.parametrize(("t", "s"), [(1, 0), (3, 2), (5, 0), (5, 1), (6, 5), (6, 2)])
def test_transitions_and_posteriors_are_the_conditional_sums_over_paths(schedule, rate, t, s):
    process = BinomialProcess(schedule, rate)
    for x_0, x_t, x_s in itertools.product((0, 1), repeat=3):
        paths = enumerated(schedule, rate, x_0)
        given_t = [(path, p) for path, p in paths if path[t] == x_t]
        expected = sum(p for path, p in given_t if path[s]) / sum(p for _, p in given_t)
        found = process.posterior(bits(x_t), bits(x_0), t, s).probability
        assert float(found) == pytest.approx(expected, abs=1e-12), (x_0, x_t)
        given_s = [(path, p) for path, p in paths if path[s] == x_s]
        if given_s:
            expected = sum(p for path, p in given_s if path[t]) / sum(p for _, p in given_s)
            assert float(process.transition(bits(x_s), t, s).probability) == pytest.approx(expected, abs=1e-12)


@EACH
@RATES
def test_the_entropy_of_a_step_is_that_of_all_paths(schedule, rate):
    process = BinomialProcess(schedule, rate)
    for x_0, t in itertools.product((0, 1), range(1, STEPS + 1)):
        joint = np.zeros((2, 2))
        for path, probability in enumerated(schedule, rate, x_0):
            joint[path[t - 1], path[t]] += probability
        expected = sum(
            joint[before].sum() * stats.entropy(joint[before]) for before in (0, 1) if joint[before].any()
        )
        assert float(process.step_entropy(bits(x_0), t)) == pytest.approx(expected, abs=1e-12)


@EACH
@RATES
def test_the_prior_is_left_as_it_is_by_every_transition(schedule, rate):
    process = BinomialProcess(schedule, rate)
    at_rest = process.stationary(bits(0.0)).probability
    for t, s in ((1, 0), (4, 2), (6, 5)):
        # The probability of a one is linear in x_s, so an average of x_s may stand in its place.
        assert float(process.transition(at_rest, t, s).probability) == pytest.approx(rate, abs=1e-13)


@RATES
def test_draws_have_the_laws_they_are_drawn_from(rate):
    process, noise = BinomialProcess(Reciprocal(STEPS), rate), Noise(3, torch.arange(20_000))
    prior = process.prior(noise, (1, 1, 2))
    assert set(prior.unique().tolist()) == {0.0, 1.0}
    assert stats.binomtest(int(prior.sum()), prior.numel(), rate).pvalue > 1e-4
    x_1 = process.marginal(torch.ones(20_000, 1, 1, 2), 3).draw(noise, Purpose.EPSILON, (1, 1, 2))
    expected = 0.5 + 0.5 * rate
    assert stats.binomtest(int(x_1.sum()), x_1.numel(), expected).pvalue > 1e-4
    again = process.prior(noise[5:9], (1, 1, 2))
    assert torch.equal(again, prior[5:9])


def test_a_time_for_each_is_one_time_for_all():
    process, x = BinomialProcess(Reciprocal(STEPS), 0.3), bits(0, 1, 1, 0)
    for t in (1, 2, 6):
        each = torch.full((4,), t)
        assert torch.equal(process.marginal(x, t).probability, process.marginal(x, each).probability)
        one, other = process.posterior(x, 1 - x, t, t - 1), process.posterior(x, 1 - x, each, each - 1)
        assert torch.equal(one.probability, other.probability)


def test_data_that_is_not_binary_is_refused():
    with pytest.raises(ValueError, match=r"zeros and ones, got values from 0 to 0\.5"):
        BinomialProcess().check(bits(0, 0.5))
    BinomialProcess().check(bits(0, 1))


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_a_rate_that_forbids_a_value_is_refused(rate):
    with pytest.raises(ValueError, match=r"process\.rate must lie between 0 and 1"):
        BinomialProcess(rate=rate)


@given(PROBABILITIES, PROBABILITIES)
def test_bernoulli_is_scipys(p, q):
    law, other = Bernoulli(torch.tensor(p, dtype=torch.float64)), Bernoulli(torch.tensor(q, dtype=torch.float64))
    for x in (0, 1):
        assert float(law.log_prob(torch.tensor(float(x)).double())) == pytest.approx(stats.bernoulli.logpmf(x, p))
    assert float(law.entropy()) == pytest.approx(stats.bernoulli.entropy(p), abs=1e-12)
    assert float(law.kl(other)) == pytest.approx(stats.entropy([p, 1 - p], [q, 1 - q]), abs=1e-12)


def test_certainty_has_no_entropy_and_forbids_the_other_value():
    law, half = Bernoulli(bits(0, 1)), Bernoulli(bits(0.5, 0.5))
    assert law.entropy().abs().max() == 0
    assert law.kl(law).abs().max() == 0
    assert torch.allclose(law.kl(half), torch.full_like(law.probability, np.log(2)))
    assert bool(half.kl(law).isinf().all())
    assert torch.equal(law.mode, bits(0, 1))
