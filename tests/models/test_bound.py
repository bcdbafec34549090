"""K against closed forms, exact densities and exact Bayes over the five heartbeats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats

from models.bound import bound, check_moments, entropy_bounds, step_kl
from models.diffusion import Chain
from models.noise import Noise, Purpose
from models.objectives import LowerBound, Weight
from models.processes import BinomialProcess, GaussianProcess
from models.reverse import DataProbability, FlipProbability, GaussianKernel
from models.schedules import Cosine, Linear, Quadratic, Reciprocal, Sigmoid

STANDARD = -2.047095585180641  # bits: minus the entropy of N(0, 1)


class TwoPoints(Noise):
    """Image i has noise ±1 by the second bit of i: with x_0 = ±1 by the first, averages of squares are exact."""

    def normal(self, purpose: Purpose, shape: Sequence[int], step: int = 0) -> torch.Tensor:
        return (1.0 - 2.0 * (self.index >> 1 & 1)).double().reshape(-1, *[1] * len(shape)).expand(-1, *shape)


def exact_k(process: GaussianProcess, std: float) -> float:
    """K of N(0, std²) under its own reverse chain, which is linear, in bits."""
    points = TwoPoints(0, torch.arange(4))
    x_0 = std * (1.0 - 2.0 * (points.index & 1)).double().reshape(-1, 1, 1, 1)
    return float(bound(Chain(process, GaussianKernel(), exact_reverse(process, std)), x_0, points).bits.mean())


def exact_reverse(process: GaussianProcess, std: float):
    """The output that makes GaussianKernel the true q(x_{t-1} | x_t) of N(0, std²), by Gaussian conditioning."""

    def network(x, t, condition):
        time = int(t[0])
        a, before = float(process.alpha_bar(time)), float(process.alpha_bar(time - 1))
        beta, marginal = 1 - a / before, before * std**2 + 1 - before
        gain = (1 - beta) ** 0.5 * marginal / (a * std**2 + 1 - a)
        variance = marginal * (1 - (1 - beta) * marginal / (a * std**2 + 1 - a))
        z_mean = (gain - (1 - beta) ** 0.5) / beta**0.5 * x
        z_variance = torch.full_like(x, np.log(variance / (1 - variance)) - np.log(beta / (1 - beta)))
        return torch.cat((z_mean, z_variance), 1)

    return network


@pytest.mark.parametrize(
    "schedule",
    [Linear(1000), Linear(40, 1e-3, 0.3), Quadratic(50), Sigmoid(60), Cosine(30), Reciprocal(40)],
    ids=lambda schedule: f"{type(schedule).__name__}{schedule.steps}",
)
def test_standard_gaussian_data_has_K_equal_to_its_log_likelihood(schedule):
    """The forward kernel is then its own reverse, which an output of 0 says."""
    process, points = GaussianProcess(schedule), TwoPoints(0, torch.arange(4))
    x_0 = (1.0 - 2.0 * (points.index & 1)).double().reshape(-1, 1, 1, 1)
    silent = Chain(process, GaussianKernel(), lambda x, t, condition: torch.cat((0 * x, 0 * x), 1))
    terms = bound(silent, x_0, points)
    assert float(terms.bits.mean()) == pytest.approx(STANDARD, abs=1e-10)
    assert float(terms.over_null.mean()) == pytest.approx(0, abs=1e-10)


def test_narrow_and_wide_gaussian_data_have_the_measured_K():
    """Below the log-likelihood for N(0, 1/4), above it, so no bound, for N(0, 4)."""
    process = GaussianProcess(Linear(1000))
    assert exact_k(process, 0.5) == pytest.approx(-1.0473338, abs=1e-7)
    assert pytest.approx(-1.0470956, abs=1e-7) == STANDARD + 1
    assert exact_k(process, 2.0) == pytest.approx(-3.04695, abs=6e-6)
    assert exact_k(process, 2.0) > STANDARD - 1


@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
def test_in_the_form_of_divergences_to_the_prior_it_is_a_bound_for_data_of_any_moments(std):
    """By how much follows from the prior's own cross-entropies, in closed form for N(0, std²)."""
    process = GaussianProcess(Linear(1000))
    points = TwoPoints(0, torch.arange(4))
    x_0 = std * (1.0 - 2.0 * (points.index & 1)).double().reshape(-1, 1, 1, 1)
    terms = bound(Chain(process, GaussianKernel(), exact_reverse(process, std)), x_0, points)
    before, after = (float(process.alpha_bar(t)) * (std**2 - 1) for t in (1, 1000))
    left_out = (-(std**2 - 1) + before - after) / 2 / np.log(2)
    assert float(terms.any_moments.mean() - terms.bits.mean()) == pytest.approx(left_out, abs=1e-12)
    likelihood = STANDARD - np.log2(std)
    assert likelihood - 1e-3 < float(terms.any_moments.mean()) <= likelihood + 1e-12


def test_the_loss_counts_T_terms_where_the_official_code_does():
    process = GaussianProcess(Linear(20, 1e-3, 0.3))
    x_0 = Noise(1, torch.arange(8)).normal(Purpose.PRIOR, (1, 1, 2)).double()
    chain = Chain(process, GaussianKernel(), lambda x, t, condition: torch.cat((0 * x + 1, 0 * x), 1))
    noise = Noise(0, torch.arange(8))
    paper, code = (LowerBound(weight)(chain, x_0, noise).loss for weight in (Weight.paper, Weight.code))
    t = LowerBound()(chain, x_0, noise).t
    x_t = process.marginal(x_0, t).draw(noise, Purpose.EPSILON, (1, 1, 2)).double()
    torch.testing.assert_close(code - paper, step_kl(chain, x_0, x_t, t) / 2)


def test_data_for_which_K_is_no_bound_is_refused():
    x = Noise(0, torch.arange(4000)).normal(Purpose.PRIOR, (1, 1, 2))
    check_moments(GaussianProcess(), x)
    with pytest.raises(ValueError, match=r"second moment 3.*standardise"):
        check_moments(GaussianProcess(), 2 * x)
    beats = heartbeats(np.arange(1000))
    check_moments(BinomialProcess(rate=0.2), beats)
    check_moments(BinomialProcess(rate=0.5), beats)
    with pytest.raises(ValueError, match=r"process\.rate"):
        check_moments(BinomialProcess(rate=0.3), beats)


def heartbeats(which: np.ndarray) -> torch.Tensor:
    """Sequences of 20 with a one in every fifth place, from place which % 5 on."""
    places = np.arange(20)[None] % 5 == np.asarray(which)[:, None] % 5
    return torch.from_numpy(places.astype(np.float64)).reshape(-1, 20, 1, 1)


def exact_bayes(process: BinomialProcess):
    """The log-odds of each element of x_0 given x_t, over the five equally likely heartbeats."""
    patterns = heartbeats(np.arange(5)).flatten(1)

    def network(x, t, condition):
        a = float(process.alpha_bar(int(t[0])))
        one = a * patterns + (1 - a) * process.rate
        log_likelihood = x.flatten(1) @ torch.log(one).T + (1 - x.flatten(1)) @ torch.log1p(-one).T
        mean = (torch.softmax(log_likelihood, 1) @ patterns).reshape(x.shape)
        return torch.logit(mean, eps=1e-15)

    return network


@pytest.mark.parametrize(
    ("steps", "rate", "beats", "measured"),
    [(100, 0.2, 4000, -2.976), (500, 0.2, 1000, -2.481), (2000, 0.2, 400, -2.370)],
)
def test_exact_bayes_attains_the_best_K_of_the_heartbeat(steps, rate, beats, measured):
    """It stays below log2(1/5): a step that treats elements apart cannot reach the truth."""
    process = BinomialProcess(Reciprocal(steps), rate)
    chain = Chain(process, DataProbability(), exact_bayes(process))
    k = bound(chain, heartbeats(np.arange(beats)), Noise(1, torch.arange(beats))).bits
    error = float(k.std()) / beats**0.5
    assert float(k.mean()) == pytest.approx(measured, abs=4 * error + 0.002)
    assert float(k.mean()) < np.log2(1 / 5)


def test_the_null_model_of_the_heartbeat_is_its_mean_rate():
    process = BinomialProcess(Reciprocal(2), 0.2)
    silent = Chain(process, FlipProbability(), lambda x, t, condition: 0 * x)
    terms = bound(silent, heartbeats(np.arange(5)), Noise(0, torch.arange(5)))
    assert float(terms.null.mean()) / np.log(2) == pytest.approx(
        -20 * stats.entropy([0.2, 0.8], base=2), abs=1e-12
    )


@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_a_kernel_that_says_nothing_has_the_K_of_its_prior(rate):
    """At rest the forward kernel is its own reverse: K of data that is the prior itself, as an exact average."""
    process, kernel = BinomialProcess(Reciprocal(8), rate), FlipProbability()
    chain = Chain(process, kernel, lambda x, t, condition: 0 * x)
    total = 0.0
    for t in range(2, 9):
        for x_0, p_0 in ((0.0, 1 - rate), (1.0, rate)):
            one = float(process.marginal(torch.full((1, 1, 1, 1), x_0).double(), t).probability)
            for x_t, p_t in ((0.0, 1 - one), (1.0, one)):
                x = torch.full((1, 1, 1, 1), x_t).double()
                total += p_0 * p_t * float(step_kl(chain, torch.full_like(x, x_0), x, t))
    data = torch.tensor([0.0, 1.0]).double().reshape(2, 1, 1, 1)
    weight = torch.tensor([1 - rate, rate], dtype=torch.float64)
    terms = bound(chain, data, Noise(0, torch.arange(2)))
    k = (weight * (terms.last - terms.first - terms.prior)).sum() - total
    assert float(k) == pytest.approx(-stats.bernoulli.entropy(rate), abs=1e-12)


def test_the_training_loss_is_minus_K_in_nats_for_each_element():
    process = BinomialProcess(Reciprocal(12), 0.2)
    chain = Chain(process, DataProbability(), lambda x, t, condition: 0 * x)
    x_0, index = heartbeats(np.arange(20_000)), torch.arange(20_000)
    whole = -bound(chain, x_0, Noise(0, index)).bits * np.log(2) / 20
    terms = LowerBound()(chain, x_0, Noise(1, index))
    assert int(terms.t.min()) == 2
    assert int(terms.t.max()) == 12
    error = float((whole.std() ** 2 + terms.loss.std() ** 2) ** 0.5) / 20_000**0.5
    assert float(terms.loss.mean()) == pytest.approx(float(whole.mean()), abs=4 * error)


@pytest.mark.parametrize("std", [0.5, 1.0])
@pytest.mark.parametrize("t", [2, 7, 20])
def test_the_entropy_of_a_reverse_step_lies_within_its_bounds(std, t):
    """Eq. 24 on Gaussian data, where H(X_{t-1} | X_t) is known by conditioning."""
    process = GaussianProcess(Linear(20, 0.01, 0.3))
    a, before = float(process.alpha_bar(t)), float(process.alpha_bar(t - 1))
    at_t, at_s = a * std**2 + 1 - a, before * std**2 + 1 - before
    exact = 0.5 * np.log(2 * np.pi * np.e * at_s * (1 - a / before * at_s / at_t))
    least, most = entropy_bounds(process, torch.zeros(1, 1, 1, 1).double(), t)
    assert float(least) <= exact + 1e-12
    assert exact <= float(most) + 1e-12
    if std == 1:
        assert float(most) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("t", [2, 5, 8])
def test_the_entropy_of_a_binomial_step_lies_within_its_bounds(t):
    """Eq. 24 against the joint law of (x_0, x_{t-1}, x_t), counted out."""
    process, rate = BinomialProcess(Linear(8, 0.05, 0.4), 0.5), 0.2
    joint = np.zeros((2, 2))
    for x_0, weight in ((0.0, 1 - rate), (1.0, rate)):
        x = torch.full((1, 1, 1, 1), x_0).double()
        one = float(process.marginal(x, t - 1).probability)
        for x_s, p_s in ((0, 1 - one), (1, one)):
            after = float(process.transition(torch.full_like(x, x_s), t, t - 1).probability)
            joint[x_s] += weight * p_s * np.array([1 - after, after])
    exact = stats.entropy(joint.flatten()) - stats.entropy(joint.sum(0))
    data = (torch.arange(1000) < 1000 * rate).double().reshape(-1, 1, 1, 1)
    least, most = entropy_bounds(process, data, t)
    assert float(least) <= exact <= float(most)


def test_there_is_no_entropy_of_a_step_to_the_data():
    with pytest.raises(ValueError, match="t must be at least 2"):
        entropy_bounds(GaussianProcess(), torch.zeros(1, 1, 1, 1), 1)


@pytest.mark.parametrize(
    ("process", "kernel", "width"),
    [(GaussianProcess(Linear(9)), GaussianKernel(), 2), (BinomialProcess(Linear(9)), FlipProbability(), 1)],
)
def test_the_last_step_is_the_forward_kernel_whatever_the_network_says(process, kernel, width):
    x = torch.tensor([0.0, 1.0]).double().reshape(2, 1, 1, 1)
    chain = Chain(process, kernel, lambda x, t, condition: 50 + torch.zeros(len(x), width, 1, 1).to(x))
    law, forward = chain.reverse(x, 1, 0), process.transition(x, 1, 0)
    assert torch.equal(law.log_prob(x), forward.log_prob(x))
    with pytest.raises(ValueError, match=r"single steps only.*sampler\.steps"):
        chain.reverse(x, 9, 4)


def test_a_kernel_of_another_process_is_refused():
    for process, kernel in ((BinomialProcess(), GaussianKernel()), (GaussianProcess(), DataProbability())):
        with pytest.raises(ValueError, match="Process, got process="):
            Chain(process, kernel, lambda x, t, condition: x)


@pytest.mark.parametrize("said", [25.0, -25.0])
def test_a_flip_that_is_all_but_certain_still_has_a_divergence_and_a_gradient(said):
    """In float32 its probability is 1, and the divergence from anything else infinite."""
    process = BinomialProcess(Reciprocal(2000), 0.2)
    x_0 = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(-1, 1, 1, 1)
    output = torch.full_like(x_0, said, requires_grad=True)
    chain = Chain(process, FlipProbability(), lambda x, t, condition: output)
    kl = step_kl(chain, x_0, 1 - x_0, torch.tensor([2, 3, 1000, 2000]))
    kl.sum().backward()
    assert bool(kl.isfinite().all() and output.grad.isfinite().all())
    assert bool((output.grad != 0).any())
