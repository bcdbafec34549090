"""p~ ∝ p r: each product against numerical multiplication, and inpainting against an exact conditional law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from models.diffusion import Chain, Diffusion
from models.distributions import Bernoulli, Gaussian
from models.noise import Noise
from models.parameterizations import Data, ReverseKernel, Variance
from models.posterior import BernoulliFactor, Course, Delta, GaussianFactor, Smooth, sample_posterior
from models.processes import GaussianProcess
from models.schedules import Cosine, Linear

MEANS, STDS, POWERS = some.floats(-2, 2), some.floats(0.2, 2), some.sampled_from([1.0, 0.5, 0.0])


def number(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


@given(MEANS, STDS, MEANS, STDS, POWERS)
def test_the_product_of_gaussians_is_the_normalised_product_of_densities(mean, std, other, width, power):
    grid = np.linspace(-25, 25, 200_001)
    density = stats.norm.pdf(grid, mean, std) * stats.norm.pdf(grid, other, width) ** power
    density /= density.sum()
    expected = (density * grid).sum()
    law = GaussianFactor(number(other), number(width)).times(Gaussian(number(mean), number(std)), power)
    assert float(law.mean) == pytest.approx(expected, abs=1e-8)
    assert float(law.std) == pytest.approx((density * (grid - expected) ** 2).sum() ** 0.5, rel=1e-7)


@given(some.floats(0.01, 0.99), some.floats(0.01, 0.99), POWERS)
def test_the_product_of_bernoullis_is_the_normalised_product(c, d, power):
    weights = np.array([(1 - c) * (1 - d) ** power, c * d**power])
    law = BernoulliFactor(number(d)).times(Bernoulli(number(c)), power)
    assert float(law.probability) == pytest.approx(weights[1] / weights.sum(), rel=1e-12)


@pytest.mark.parametrize("std", [0.1, 0.01])
def test_a_perturbed_mean_is_the_exact_product_up_to_the_square_of_the_variance(std):
    """Against r = N(1, 1), for which the product is known: the error of the mean is of order std⁴."""
    law = Gaussian(number(0.3), number(std))
    exact = GaussianFactor(number(1.0), number(1.0)).times(law)
    found = Smooth(lambda x: 1 - x).times(law)
    assert abs(float(found.mean - exact.mean)) < std**4
    assert abs(float(found.std - exact.std)) < std**3


def test_a_delta_holds_what_is_known_and_leaves_the_rest():
    mask = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
    delta = Delta(torch.full((2, 1, 1), 1.0), mask)
    law = delta.times(Gaussian(torch.zeros(3, 2, 1, 1), torch.ones(3, 2, 1, 1)))
    assert law.mean[0].flatten().tolist() == [1, 0]
    assert law.std[0].flatten().tolist() == [0, 1]
    bits = delta.times(Bernoulli(torch.full((3, 2, 1, 1), 0.25)))
    assert bits.probability[0].flatten().tolist() == [1, 0.25]


def test_the_course_of_a_factor_rises_to_all_of_it_at_the_data():
    assert [Course.power.exponent(t, 4) for t in (4, 2, 0)] == [0, 0.5, 1]
    assert [Course.constant.exponent(t, 4) for t in (4, 2, 0)] == [1, 1, 1]


@pytest.mark.parametrize("course", list(Course))
def test_denoising_gaussian_data_has_the_exact_posterior(course):
    """Data N(0, 1) is every x_t; with r = N(1, ½²) the posterior is N(0.8, 0.2)."""
    process = GaussianProcess(Linear(50, 1e-3, 0.3))

    def denoise(x, t, condition):
        return float(process.alpha_bar(int(t[0]))) ** 0.5 * x

    diffusion = Diffusion(process, Data(variance=Variance.large), denoise)
    factor = GaussianFactor(torch.ones(1, 1, 1), torch.full((1, 1, 1), 0.5))
    x = sample_posterior(diffusion, factor, (1, 1, 1), Noise(0, torch.arange(3000)), course, rounds=10)
    # A step of p~ is taken as if its normaliser did not matter; ten rounds leave that below these tolerances.
    assert float(x.mean()) == pytest.approx(0.8, abs=0.06)
    assert float(x.std()) == pytest.approx(0.2**0.5, abs=0.04)


MIXTURE, SPREAD, KNOWN = torch.tensor([[-1.0, -0.5], [1.0, 0.5]]).double(), 0.5, 0.1


class Exact(ReverseKernel):
    """The true mean and variances of q(x_{t-1} | x_t), from those of x_0 given x_t."""

    outputs = 2

    def check(self, process):
        """Any process."""

    def law(self, process, output, x_t, t, s, clip):
        mean, variance = output.chunk(2, dim=1)
        of_data, of_image, std = (float(c) for c in process.posterior_coefficients(t, s))
        return Gaussian(of_data * mean + of_image * x_t, (std**2 + of_data**2 * variance).sqrt())


def mixture_chain(steps: int) -> Chain:
    """The exact chain of an equal mixture of two Gaussians in the plane, whose coordinates are correlated."""
    process = GaussianProcess(Cosine(steps))

    def moments(x, t, condition):
        a = float(process.alpha_bar(int(t[0])))
        variance = a * SPREAD**2 + 1 - a
        distance = x.flatten(1)[:, None] - a**0.5 * MIXTURE
        weight = torch.softmax(-distance.square().sum(2) / 2 / variance, 1)[..., None]
        of_component = MIXTURE + a**0.5 * SPREAD**2 * distance / variance
        mean = (weight * of_component).sum(1)
        spread = SPREAD**2 * (1 - a) / variance + (weight * (of_component - mean[:, None]) ** 2).sum(1)
        return torch.cat((mean, spread), 1).to(x).reshape(len(x), 4, 1, 1)

    return Chain(process, Exact(), moments)


def conditional_cdf(x: np.ndarray) -> np.ndarray:
    """P(x_2 ≤ x | x_1 = KNOWN), by Bayes over the two components."""
    weight = stats.norm.pdf(KNOWN, MIXTURE[:, 0], SPREAD)
    weight /= weight.sum()
    return sum(w * stats.norm.cdf(x, float(mean), SPREAD) for w, mean in zip(weight, MIXTURE[:, 1], strict=True))


def inpainted(rounds: int) -> np.ndarray:
    mask = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
    x = sample_posterior(
        mixture_chain(50), Delta(KNOWN * mask, mask), (2, 1, 1), Noise(0, torch.arange(3000)), rounds=rounds
    )
    assert torch.allclose(x[:, 0], torch.tensor(KNOWN))
    return x[:, 1].flatten().double().numpy()


def test_inpainting_a_mixture_has_the_exact_conditional_law():
    exact = np.random.default_rng(0)
    weight = stats.norm.pdf(KNOWN, MIXTURE[:, 0], SPREAD)
    component = exact.choice(2, 3000, p=weight / weight.sum())
    drawn = MIXTURE[:, 1].numpy()[component] + SPREAD * exact.standard_normal(3000)
    found = inpainted(rounds=20)
    assert stats.ks_2samp(found, drawn).pvalue > 1e-3
    assert stats.kstest(found, conditional_cdf).statistic < 0.03


def test_one_round_as_in_the_paper_is_biased_and_rounds_take_the_bias_away():
    one, many = (stats.kstest(inpainted(rounds), conditional_cdf).statistic for rounds in (1, 8))
    assert many < one / 2


@pytest.mark.parametrize(
    ("value", "mask", "said"),
    [
        (
            torch.zeros(2, 1, 1),
            torch.zeros(1, 2, 1),
            r"mask must be of the images' shape \(2, 1, 1\), got \(1, 2, 1\)",
        ),
        (torch.zeros(3, 1, 1), torch.zeros(2, 1, 1), r"value must be of the images' shape"),
        (torch.zeros(2, 1, 1), torch.full((2, 1, 1), 0.5), "mask must be 1 where x is known"),
    ],
)
def test_a_wrong_mask_is_refused_before_anything_is_computed(value, mask, said):
    def network(x, t, condition):
        raise AssertionError("the network was called")

    diffusion = Diffusion(GaussianProcess(Linear(4)), Data(), network)
    with pytest.raises(ValueError, match=said):
        sample_posterior(diffusion, Delta(value, mask), (2, 1, 1), Noise(0, torch.arange(2)))


def test_a_factor_of_another_kind_of_law_is_refused():
    bits, normal = Bernoulli(number(0.5)), Gaussian(number(0.0), number(1.0))
    for factor in (GaussianFactor(number(0.0), number(1.0)), Smooth(lambda x: x)):
        with pytest.raises(ValueError, match="multiplies Gaussian laws, got Bernoulli"):
            factor.times(bits)
    with pytest.raises(ValueError, match="multiplies Bernoulli laws, got Gaussian"):
        BernoulliFactor(number(0.5)).times(normal)


@pytest.mark.parametrize(("clip", "end"), [(False, 3.0), (True, 1.0)])
def test_x_0_is_held_to_the_pixels_range_where_it_is_asked(clip, end):
    diffusion = Diffusion(
        GaussianProcess(Linear(5, 0.1, 0.5)), Data(), lambda x, t, condition: torch.full_like(x, 3)
    )
    nothing = Delta(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    x = sample_posterior(diffusion, nothing, (1, 1, 1), Noise(0, torch.arange(2)), clip=clip)
    assert x.flatten().tolist() == pytest.approx([end, end])
