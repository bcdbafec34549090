"""The bound: exact on Gaussian data under every schedule, its two forms equal, its terms by integration."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from models.diffusion import Diffusion
from models.likelihood import Bound, Decoder, Likelihood, fewer_times, prior_term
from models.noise import Noise
from models.parameterizations import Data, FirstVariance, Variance
from models.processes import GaussianProcess
from models.schedules import Constant, Cosine, Linear, Quadratic, Reciprocal, Sigmoid
from tests.oracles import GaussianData, Mixture, linear_alpha_bar

ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), in nats
STATED = -2.047095585180641  # ln p of the same in bits
SCHEDULES = [Linear(), Linear(7), Quadratic(100), Sigmoid(300), Cosine(50), Constant(200), Reciprocal(40)]
DENSITY = Likelihood(Decoder.density)
TEXT = Data(Variance.large, FirstVariance.beta_1)


@dataclass(frozen=True)
class Quadrature(Noise):
    """Says the nodes of a quadrature in place of random numbers, so that weighted means are integrals."""

    nodes: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def normal(self, purpose, shape, step=0):
        return self.nodes


def quadrature(count: int, parts: Mixture) -> tuple[torch.Tensor, Quadrature, torch.Tensor]:
    """Nodes for x_0 ~ parts and for the noise, and the weight of each pair: exact for polynomials."""
    node, weight = np.polynomial.hermite_e.hermegauss(count)
    weight = weight / weight.sum()
    rows = [
        (mean + std * x, e, part * w * v)
        for part, mean, std in zip(parts.weights, parts.means, parts.stds, strict=True)
        for (x, w), (e, v) in itertools.product(zip(node, weight, strict=True), repeat=2)
    ]
    x_0, epsilon, weights = torch.tensor(rows, dtype=torch.float64).T
    as_images = (-1, 1, 1, 1)
    return x_0.reshape(as_images), Quadrature(0, torch.arange(len(rows)), epsilon.reshape(as_images)), weights


def table_of(process: GaussianProcess) -> np.ndarray:
    """alpha-bar_0 .. alpha-bar_T, by numpy's product of the betas."""
    return np.concatenate(([1.0], np.cumprod(1 - process.schedule.beta().numpy())))


def optimal(process: GaussianProcess, law: GaussianData, learned: bool) -> Diffusion:
    """The diffusion whose every reverse law is q(x_{t-1} | x_t) of Gaussian data itself.

    Its variance is beta~ + w² Var[x_0 | x_t], w the posterior's weight of x_0: between beta~ and beta, and so
    within reach of a learned variance; for data N(0, 1) it is beta.
    """
    table = table_of(process)
    network = law.data_network(table)
    if not learned:
        return Diffusion(process, TEXT, network)

    def with_spread(x, t, condition):
        a_t, a_s = (torch.from_numpy(table)[time].reshape(-1, 1, 1, 1) for time in (t, t - 1))
        beta = 1 - a_t / a_s
        small = beta * (1 - a_s) / (1 - a_t)
        variance = small + a_s * (beta / (1 - a_t)) ** 2 * law.std**2 * (1 - a_t) / (a_t * law.std**2 + 1 - a_t)
        # At t = 1, where beta~ is 0, the interpolation starts from beta~_2.
        second = (1 - table[1]) / (1 - table[2]) * (1 - table[2] / table[1])
        low = torch.where(t.reshape(-1, 1, 1, 1) == 1, torch.tensor(second, dtype=torch.float64), small).log()
        spread = 2 * (variance.log() - low) / (beta.log() - low) - 1
        return torch.cat((network(x, t, condition), spread.expand_as(x)), 1)

    return Diffusion(process, Data(Variance.learned), with_spread)


def bits(nats: float) -> float:
    return nats / math.log(2)


def k_of_dpm(terms: np.ndarray, table: np.ndarray) -> float:
    """K in nats (Sohl-Dickstein et al. 2015, Eq. 14): the divergences for t = 2..T, and three entropies."""
    h_last, h_first = (0.5 * math.log(2 * math.pi * math.e * (1 - table[t])) for t in (-1, 1))
    return -terms[1:-1].sum() + h_last - h_first - ENTROPY


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: f"{type(schedule).__name__}-{schedule.steps}")
def test_on_standard_normal_data_the_bound_and_k_are_the_likelihood_for_any_schedule(schedule):
    process = GaussianProcess(schedule)
    x_0, noise, weight = quadrature(3, Mixture((1.0,), (0.0,), (1.0,)))
    bound = DENSITY.bound(optimal(process, GaussianData(0, 1), learned=False), x_0, noise)
    assert bits(-float(weight @ bound.total)) == pytest.approx(STATED, abs=1e-10)
    assert bits(k_of_dpm((weight @ bound.terms).numpy(), table_of(process))) == pytest.approx(STATED, abs=1e-10)


def test_on_narrower_data_a_learned_variance_reaches_the_likelihood_and_k_is_the_papers():
    """N(0, .25) under the linear schedule: L = -1.0470956 bits, K = -1.0473338 by the edge effect."""
    process = GaussianProcess()
    x_0, noise, weight = quadrature(3, Mixture((1.0,), (0.0,), (0.5,)))
    bound = DENSITY.bound(optimal(process, GaussianData(0, 0.5), learned=True), x_0, noise)
    assert bits(-float(weight @ bound.total)) == pytest.approx(STATED + 1, abs=1e-8)
    assert bits(k_of_dpm((weight @ bound.terms).numpy(), table_of(process))) == pytest.approx(-1.0473338, abs=1e-6)


@pytest.mark.parametrize("variance", [Variance.small, Variance.large])
def test_on_narrower_data_a_fixed_variance_leaves_a_gap_above_the_entropy(variance):
    process = GaussianProcess(Linear(100, 1e-3, 0.2))
    x_0, noise, weight = quadrature(3, Mixture((1.0,), (0.0,), (0.5,)))
    diffusion = Diffusion(process, Data(variance), GaussianData(0, 0.5).data_network(table_of(process)))
    assert bits(float(weight @ DENSITY.bound(diffusion, x_0, noise).total)) > -STATED - 1 + 1e-3


@pytest.mark.parametrize("schedule", SCHEDULES[1:5], ids=lambda schedule: type(schedule).__name__)
def test_where_the_reverse_laws_are_exact_every_path_says_the_likelihood(schedule):
    """Eq. 3 of DDPM telescopes then: on any path at all it is -ln p(x_0), with no noise in it."""
    x_0 = torch.linspace(-3, 3, 14, dtype=torch.float64).reshape(7, 1, 1, 2)
    diffusion = optimal(GaussianProcess(schedule), GaussianData(0, 1), learned=False)
    found = DENSITY.along_a_path(diffusion, x_0, Noise(3, torch.arange(7)))
    expected = -stats.norm.logpdf(x_0.numpy()).sum((1, 2, 3))
    assert np.allclose(found.numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES[1:5], ids=lambda schedule: type(schedule).__name__)
def test_equation_5_agrees_with_equation_3_at_each_image(schedule):
    """Integrated over the noise, Eq. 5 is the mean of Eq. 3 at each x_0, which is -ln p(x_0) here."""
    diffusion = optimal(GaussianProcess(schedule), GaussianData(0, 1), learned=False)
    for value in (-2.5, 0.0, 0.7):
        x_0, noise, weight = quadrature(3, Mixture((1.0,), (value,), (0.0,)))
        found = float(weight @ DENSITY.bound(diffusion, x_0, noise).total)
        assert found == pytest.approx(-stats.norm.logpdf(value), abs=1e-9)


def test_the_two_forms_have_one_mean_where_the_reverse_laws_are_not_exact():
    data, table = Mixture((0.3, 0.7), (-0.6, 0.5), (0.15, 0.25)), linear_alpha_bar(12, 0.01, 0.4)
    process = GaussianProcess(Linear(12, 0.01, 0.4))
    diffusion = Diffusion(process, Data(), lambda x, t, condition: 0.8 * data.data_network(table)(x, t, condition))
    index = torch.arange(20_000)
    x_0 = torch.full((len(index), 1, 1, 1), 0.4, dtype=torch.float64)
    found = [
        DENSITY.bound(diffusion, x_0, Noise(1, index)).total,
        DENSITY.along_a_path(diffusion, x_0, Noise(2, index)),
    ]
    gap = float(found[0].mean() - found[1].mean())
    assert abs(gap) < 4 * sum(float(each.var()) / len(index) for each in found) ** 0.5


def test_the_terms_of_mixture_data_are_those_of_numerical_integration():
    """With the optimal denoiser a divergence is its value at no error plus w² E Var[x_0 | x_t] / 2 sigma²."""
    data, table = Mixture((0.3, 0.7), (-0.6, 0.5), (0.3, 0.4)), linear_alpha_bar(6, 0.05, 0.5)
    process = GaussianProcess(Linear(6, 0.05, 0.5))
    diffusion = Diffusion(process, TEXT, data.data_network(table))
    x_0, noise, weight = quadrature(60, data)
    found = weight @ DENSITY.bound(diffusion, x_0, noise).terms
    for t in range(1, 7):
        a_t, a_s = table[t], table[t - 1]
        beta, of_data = 1 - a_t / a_s, a_s**0.5 * (1 - a_t / a_s) / (1 - a_t)
        small = beta * (1 - a_s) / (1 - a_t)
        error = of_data**2 * remaining_variance(data, a_t) / beta / 2
        if t == 1:
            expected = 0.5 * math.log(2 * math.pi * beta) + error
        else:
            expected = 0.5 * (small / beta - 1 - math.log(small / beta)) + error
        assert float(found[t - 1]) == pytest.approx(expected, abs=2e-6), f"L_{t - 1}"
    second = sum(w * (m**2 + s**2) for w, m, s in zip(data.weights, data.means, data.stds, strict=True))
    assert float(found[6]) == pytest.approx(
        0.5 * (table[6] * second - table[6] - math.log(1 - table[6])), abs=1e-9
    )


def remaining_variance(data: Mixture, a: float) -> float:
    """E Var[x_0 | x_t], by scipy's quadrature of E[x_0 | x_t] squared."""
    stds = [(a * s**2 + 1 - a) ** 0.5 for s in data.stds]

    def integrand(x: float) -> float:
        parts = zip(data.weights, data.means, stds, strict=True)
        density = sum(w * stats.norm.pdf(x, a**0.5 * m, s) for w, m, s in parts)
        return density * float(data.denoise(torch.tensor([x]), torch.tensor([a]))) ** 2

    second = sum(w * (m**2 + s**2) for w, m, s in zip(data.weights, data.means, data.stds, strict=True))
    return second - integrate.quad(integrand, -8, 8, limit=400, epsabs=1e-10)[0]


def test_the_decoder_gives_each_pixel_value_the_mass_of_its_bin():
    x_0 = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).reshape(256, 1, 1, 1)
    diffusion = Diffusion(
        GaussianProcess(Linear(3, 0.04, 0.3)), TEXT, lambda x, t, condition: torch.full_like(x, 0.3)
    )
    found = Likelihood().bound(diffusion, x_0, Noise(0, torch.arange(256))).decoder.numpy()
    edges = np.concatenate(([-np.inf], (np.arange(1, 256) - 0.5) / 127.5 - 1, [np.inf]))
    expected = -np.log(np.diff(stats.norm.cdf(edges, 0.3, 0.2)))
    near = np.abs(x_0.numpy().ravel() - 0.3) < 0.6  # beyond, the differences of scipy's cdf have lost their digits
    assert np.allclose(found[near], expected[near], rtol=1e-9)
    assert np.exp(-found).sum() == pytest.approx(1, abs=1e-12)


def test_the_variance_of_the_last_step_is_named():
    """t = 1 under the papers' schedule: the code's beta~_2 or the text's beta_1."""
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    expected = {
        (Variance.small, FirstVariance.beta_tilde_2): 5.4531876613021935e-05,
        (Variance.small, FirstVariance.beta_1): 5.4531876613021935e-05,
        (Variance.large, FirstVariance.beta_tilde_2): 5.4531876613021935e-05,
        (Variance.large, FirstVariance.beta_1): 1e-4,
    }
    for (variance, first), value in expected.items():
        for t in (1, torch.tensor([1])):
            law = Data(variance, first).reverse(GaussianProcess(), x, x, t, t - 1)
            assert float(law.std) ** 2 == pytest.approx(value, rel=1e-10)


def test_the_priors_term_is_the_closed_form_and_small():
    """About 1e-5 bits for each dimension of an image (Ho et al. 2020, section 3.1), in float32 too."""
    a = 4.035829765376e-05
    x_0 = torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(1, 3, 4, 4)
    expected = 0.5 * float((a * x_0**2 - a - math.log1p(-a)).sum())
    assert float(prior_term(GaussianProcess(), x_0)) == pytest.approx(expected, rel=1e-9)
    assert float(prior_term(GaussianProcess(), x_0.float())) == pytest.approx(expected, rel=2e-2)
    assert 1e-6 < bits(expected) / 48 < 3e-5


@pytest.mark.parametrize(("steps", "power"), [(2, 1.0), (3, 1.0), (12, 3.0)])
def test_seen_at_fewer_times_the_bound_of_standard_normal_data_is_still_its_likelihood(steps, power):
    """Its reverse laws are Gaussian over any stride, so that nothing is lost."""
    process = GaussianProcess(Linear(40, 1e-3, 0.3))
    x_0, noise, weight = quadrature(3, Mixture((1.0,), (0.0,), (1.0,)))
    times = fewer_times(40, steps, power)
    bound = DENSITY.bound(optimal(process, GaussianData(0, 1), learned=False), x_0, noise, times=times)
    assert bound.terms.shape[1] == steps + 1
    assert bits(-float(weight @ bound.total)) == pytest.approx(STATED, abs=1e-10)


def test_seen_at_fewer_times_the_terms_of_narrower_data_are_the_closed_form():
    """N(0, .25) with the posterior's variance: a divergence is w² Var[x_0 | x_t] / 2 beta~, for any t and s."""
    process, data = GaussianProcess(Linear(60, 1e-3, 0.2)), GaussianData(0, 0.5)
    x_0, noise, weight = quadrature(3, Mixture((1.0,), (0.0,), (0.5,)))
    table, times = table_of(process), fewer_times(60, 6)
    diffusion = Diffusion(process, Data(Variance.small), data.data_network(table))
    found = weight @ DENSITY.bound(diffusion, x_0, noise, times=times).terms
    for number, (s, t) in enumerate(itertools.pairwise(times[-2::-1]), start=1):
        beta = 1 - table[t] / table[s]
        small, of_data = beta * (1 - table[s]) / (1 - table[t]), table[s] ** 0.5 * beta / (1 - table[t])
        expected = of_data**2 * data.uncertainty(table[t]) / small / 2
        assert float(found[number]) == pytest.approx(expected, rel=1e-9), (t, s)


def test_the_fewer_times_begin_at_t_and_end_at_1_and_0():
    assert fewer_times(4) == [4, 3, 2, 1, 0]
    assert fewer_times(1) == [1, 0]
    assert fewer_times(1000, 4) == [1000, 667, 334, 1, 0]
    assert fewer_times(1000, 5, 3.0) == [1000, 422, 126, 17, 1, 0]
    for steps in (2, 50, 999, 1000):
        times = fewer_times(1000, steps, 3.0)
        assert len(times) == steps + 1
        assert all(t > s for t, s in itertools.pairwise(times))
    for steps, power, said in (
        (1, 1.0, "from 2 to the process's 9"),
        (10, 1.0, "got 10"),
        (3, 0.5, "power must be"),
    ):
        with pytest.raises(ValueError, match=said):
            fewer_times(9, steps, power)


def test_rate_counts_what_is_sent_from_the_first_message_on():
    bound = Bound(torch.tensor([[8.0, 4.0, 2.0, 1.0]]), torch.tensor([[0.04, 0.16, 0.25]]))
    assert bound.rate().tolist() == [[7.0, 3.0, 1.0]]
    assert bound.total.tolist() == [15.0]
    assert (bound.decoder.tolist(), bound.prior.tolist()) == ([8.0], [1.0])
    assert bound.rmse().tolist() == pytest.approx([25.5, 51.0, 63.75])


def test_clipping_holds_the_estimate_within_the_pixels_range():
    x_0 = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    diffusion = Diffusion(GaussianProcess(Linear(4)), Data(), lambda x, t, condition: 3 * torch.ones_like(x))
    for clip, error in ((True, 0.0), (False, 2.0)):
        bound = Likelihood(clip=clip).bound(diffusion, x_0, Noise(0, torch.arange(2)))
        assert bound.rmse().tolist() == pytest.approx([127.5 * error] * 4)


def test_the_bound_of_an_image_does_not_depend_on_its_batch():
    table = linear_alpha_bar(10)
    diffusion = Diffusion(GaussianProcess(Linear(10)), Data(), GaussianData(0.1, 0.4).data_network(table))
    x_0 = torch.rand(6, 1, 3, 3, dtype=torch.float64) * 2 - 1
    noise = Noise(0, torch.arange(6))
    whole = Likelihood().bound(diffusion, x_0, noise).terms
    parts = [Likelihood().bound(diffusion, x_0[rows], noise[rows]).terms for rows in (slice(0, 1), slice(1, 6))]
    assert torch.equal(torch.cat(parts), whole)
