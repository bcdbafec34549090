"""The estimate of ln p(x_0) where p(x_0) is exact: a linear Gaussian chain, and a binary chain counted out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from models.diffusion import Chain
from models.importance import log_probability
from models.noise import Noise
from models.processes import BinomialProcess, GaussianProcess
from models.reverse import FlipProbability, GaussianKernel
from models.schedules import Linear

STEPS = 12


def test_a_linear_gaussian_chain_has_its_exact_density():
    """Each step is N(sqrt(1 - beta) x + sqrt(beta) z, V): the law of x_0 is a Gaussian whose moments add up."""
    process, shift, wider = GaussianProcess(Linear(STEPS, 0.01, 0.1)), 0.05, 0.1
    chain = Chain(
        process,
        GaussianKernel(),
        lambda x, t, c: torch.cat((torch.full_like(x, shift), torch.full_like(x, wider)), 1),
    )
    mean, variance, beta = 0.0, 1.0, process.schedule.beta().numpy()
    for t in range(STEPS, 0, -1):
        b = beta[t - 1]
        learned = 1 / (1 + np.exp(-(wider + np.log(b / (1 - b))))) if t > 1 else b
        mean = (1 - b) ** 0.5 * mean + (b**0.5 * shift if t > 1 else 0)
        variance = (1 - b) * variance + learned
    x_0 = torch.linspace(-2, 2, 9).double().reshape(-1, 1, 1, 1)
    exact = stats.norm.logpdf(x_0.flatten().numpy(), mean, variance**0.5)
    found = log_probability(chain, x_0, Noise(0, torch.arange(9)), 100)
    score = (found.value.numpy() - exact) / found.error.numpy()
    assert np.abs(score).max() < 4.5
    assert np.abs(score).mean() < 1.6
    assert float(found.error.max()) < 0.1
    assert float(found.effective.min()) > 20


def test_at_rest_every_trajectory_has_the_same_weight():
    """A reversible chain with nothing learned: no work is done, and one trajectory would do."""
    process = GaussianProcess(Linear(STEPS, 0.01, 0.3))
    chain = Chain(process, GaussianKernel(), lambda x, t, c: torch.cat((0 * x, 0 * x), 1))
    x_0 = torch.linspace(-2, 2, 5).double().reshape(-1, 1, 1, 1)
    found = log_probability(chain, x_0, Noise(0, torch.arange(5)), 4)
    assert found.value.numpy() == pytest.approx(stats.norm.logpdf(x_0.flatten().numpy()), abs=1e-12)
    assert float(found.error.max()) < 1e-12
    assert found.effective.numpy() == pytest.approx(4)


def test_a_binary_chain_has_its_counted_probability():
    process, steps = BinomialProcess(Linear(4, 0.1, 0.4), 0.3), 4

    def network(x, t, condition):
        return 1.5 * x.flip(1) - 0.5 * t.reshape(-1, 1, 1, 1) / steps

    chain = Chain(process, FlipProbability(), network)
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=torch.float64).reshape(4, 2, 1, 1)
    probability = process.stationary(states).log_prob(states).flatten(1).sum(1).exp()
    for t in range(steps, 0, -1):
        law = chain.reverse(states, t, t - 1)
        to = [law.log_prob(state.expand(4, 2, 1, 1)).flatten(1).sum(1).exp() for state in states]
        probability = torch.stack([(probability * column).sum() for column in to])
    assert float(probability.sum()) == pytest.approx(1)
    found = log_probability(chain, states, Noise(1, torch.arange(4)), 300)
    assert np.abs((found.value - probability.log()).numpy() / found.error.numpy()).max() < 4
    assert float(found.error.max()) < 0.05


@pytest.mark.parametrize("trajectories", [1, 1 << 20])
def test_an_impossible_number_of_trajectories_is_refused(trajectories):
    chain = Chain(GaussianProcess(Linear(4)), GaussianKernel(), lambda x, t, c: x)
    with pytest.raises(ValueError, match="trajectories must lie in"):
        log_probability(chain, torch.zeros(1, 1, 1, 1), Noise(0, torch.arange(1)), trajectories)
