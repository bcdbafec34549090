"""The noise ladder: diffusers' and numpy's sigmas, the rules of NCSNv2, and no chain to walk back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import ScoreSdeVeScheduler
from hypothesis import given
from hypothesis import strategies as some
from scipy import optimize, spatial, stats

from models.diffusion import Diffusion
from models.ladder import NoiseLadder, largest_distance, levels_for, overlap, step_size_for, variance_ratio
from models.noise import Noise
from models.parameterizations import Epsilon, Score
from models.samplers import Ancestral, Ddim

# Song & Ermon 2020, appendix B: dimension, sigma_1, L, Langevin steps a level, epsilon; sigma_L = .01.
CIFAR = (3 * 32**2, 50.0, 232, 5, 6.2e-6)
CELEBA = (3 * 64**2, 90.0, 500, 5, 3.3e-6)
CHURCH = (3 * 96**2, 140.0, 788, 4, 4.9e-6)


def sigmas(ladder: NoiseLadder) -> list[float]:
    return [float(ladder.sigma(t)) for t in range(ladder.levels + 1)]


@pytest.mark.parametrize("ladder", [NoiseLadder(), NoiseLadder(232, 50.0, 0.01), NoiseLadder(1, 0.3, 0.3)])
def test_the_sigmas_are_geometric_and_grow_with_t(ladder):
    expected = np.geomspace(ladder.smallest, ladder.largest, ladder.levels)
    assert sigmas(ladder)[0] == 0
    assert sigmas(ladder)[1:] == pytest.approx(expected, rel=1e-12)


def test_the_sigmas_of_the_paper_are_those_of_diffusers():
    theirs = ScoreSdeVeScheduler()
    theirs.set_sigmas(10, 0.01, 1.0)
    assert sigmas(NoiseLadder())[1:] == pytest.approx(theirs.discrete_sigmas.tolist(), rel=1e-6)


def test_the_marginal_is_the_data_with_noise_of_each_images_level():
    x_0, t = torch.randn(3, 2, 2, 2), torch.tensor([1, 5, 10])
    law = NoiseLadder().marginal(x_0, t)
    assert torch.equal(law.mean, x_0)
    assert law.std.flatten().tolist() == pytest.approx(np.geomspace(0.01, 1, 10)[[0, 4, 9]], rel=1e-6)


def test_the_prior_has_the_largest_noise():
    x = NoiseLadder(largest=20.0).prior(Noise(0, torch.arange(500)), (1, 4, 4)).double().flatten().numpy()
    assert stats.kstest(x, "norm", (0, 20.0)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"levels": 0}, r"process\.levels must be at least 1, got 0"),
        ({"smallest": 0.0}, r"process\.smallest must be positive .*got 0\.0 and 1\.0"),
        ({"smallest": 2.0}, r"process\.smallest must be .* at most process\.largest, got 2\.0 and 1\.0"),
        ({"largest": math.inf}, r"got 0\.01 and inf"),
        ({"levels": 1}, r"must be equal for one level.*got 0\.01 and 1\.0 for process\.levels=1"),
        ({"largest": 0.01}, r"differ for more.*process\.levels=10"),
    ],
)
def test_a_ladder_that_cannot_be_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        NoiseLadder(**values)


@pytest.mark.parametrize("sampler", [Ancestral(), Ddim()])
def test_a_sampler_that_walks_a_chain_back_is_refused_before_anything_is_computed(sampler):
    def network(x, t, condition):
        raise AssertionError("the network was called")

    diffusion = Diffusion(NoiseLadder(), Score(), network)
    with pytest.raises(ValueError, match=r"=(ancestral|ddim) needs a (Markov|Gaussian)Process.*NoiseLadder"):
        sampler(diffusion, (1, 2, 2), Noise(0, torch.arange(2)))
    with pytest.raises(ValueError, match=r"p\(x_s \| x_t\) needs a GaussianProcess.*NoiseLadder"):
        diffusion.reverse(torch.zeros(2, 1, 2, 2), 2, 1)


def test_a_parameterization_of_the_chain_is_refused():
    with pytest.raises(ValueError, match=r"parameterization=Epsilon needs a GaussianProcess.*NoiseLadder"):
        Diffusion(NoiseLadder(), Epsilon(), lambda x, t, condition: x)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_largest_distance_is_scipys(chunk):
    x = torch.rand(40, 3, 4, 4, dtype=torch.float64)
    expected = spatial.distance.pdist(x.flatten(1).numpy()).max()
    assert largest_distance(x, chunk) == pytest.approx(expected, rel=1e-9)


@given(some.floats(1.0, 2.0), some.integers(1, 200_000))
def test_the_overlap_is_the_formula_of_technique_2(gamma, dimension):
    offset = np.sqrt(2 * dimension) * (gamma - 1)
    expected = stats.norm.cdf(offset + 3 * gamma) - stats.norm.cdf(offset - 3 * gamma)
    assert overlap(gamma, dimension) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("dimension", "largest", "levels"), [paper[:3] for paper in (CIFAR, CELEBA, CHURCH)])
def test_the_published_ladders_overlap_alike_and_come_from_the_rule(dimension, largest, levels):
    published = overlap(NoiseLadder(levels, largest, 0.01).gamma, dimension)
    assert published == pytest.approx(0.567, abs=1e-3)
    assert levels_for(dimension, largest, 0.01, published - 1e-9) == levels


@given(some.integers(5, 50_000), some.floats(0.5, 300), some.floats(0.05, 0.95))
def test_the_ladder_of_the_rule_is_the_shortest_that_overlaps_enough(dimension, largest, wanted):
    levels = levels_for(dimension, largest, 0.01, wanted)
    span = math.log(largest / 0.01)
    assert overlap(math.exp(span / (levels - 1)), dimension) >= wanted
    assert levels == 2 or overlap(math.exp(span / (levels - 2)), dimension) < wanted


def test_an_overlap_that_no_ladder_has_is_refused():
    with pytest.raises(ValueError, match=r"least_overlap must lie in \(0, 0\.99\], got 1\.0"):
        levels_for(3072, 50.0, 0.01, 1.0)


@pytest.mark.parametrize(("largest", "smallest"), [(0.0, 0.01), (0.01, 0.01), (50.0, 0.0)])
def test_a_rule_for_ends_that_no_ladder_has_is_refused(largest, smallest):
    with pytest.raises(ValueError, match=rf"got smallest={smallest} and largest={largest}"):
        levels_for(3072, largest, smallest)


@pytest.mark.parametrize("paper", [CIFAR, CELEBA, CHURCH])
@pytest.mark.parametrize("epsilon", [1e-7, 6.2e-6, 2e-5])
def test_the_variance_ratio_is_that_of_the_steps_taken_one_by_one(paper, epsilon):
    _, largest, levels, steps, _ = paper
    ladder = NoiseLadder(levels, largest, 0.01)
    sigma = float(ladder.sigma(levels - 1))
    alpha, variance = epsilon * sigma**2 / 0.01**2, float(ladder.sigma(levels)) ** 2
    for _ in range(steps):  # x + alpha · (-x / sigma²) + sqrt(2 alpha) z, for data at one point
        variance = (1 - alpha / sigma**2) ** 2 * variance + 2 * alpha
    assert variance_ratio(epsilon, steps, ladder) == pytest.approx(variance / sigma**2, rel=1e-9)


@pytest.mark.parametrize("paper", [CIFAR, CELEBA])
def test_the_step_size_is_the_published_one_and_scipys_optimum(paper):
    _, largest, levels, steps, published = paper
    ladder = NoiseLadder(levels, largest, 0.01)
    found = step_size_for(steps, ladder)
    assert found == pytest.approx(published, rel=0.02)
    best = optimize.minimize_scalar(
        lambda epsilon: (variance_ratio(epsilon, steps, ladder) - 1) ** 2,
        bounds=(1e-7, 5e-5),
        method="bounded",
        options={"xatol": 1e-12},
    )
    assert found == pytest.approx(best.x, rel=1e-3)


def test_the_published_step_size_of_church_is_as_good_as_the_optimum():
    _, largest, levels, steps, published = CHURCH
    ladder = NoiseLadder(levels, largest, 0.01)
    best = variance_ratio(step_size_for(steps, ladder), steps, ladder)
    assert abs(variance_ratio(published, steps, ladder) - best) < 0.003
