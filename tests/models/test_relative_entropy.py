"""Relative entropy coding of one block: the law of what is sent, and the length of its number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from models.relative_entropy import INDEX_BITS, Common, Shifted, limits, search

COUNT = 4000


def coded(mean: list[float], limit: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Of COUNT codings of one block, which was not to exceed the limit: the numbers and the samples."""
    law = Shifted.free(torch.tensor(mean, dtype=torch.float64).expand(COUNT, -1))
    common = Common(seed, 1, torch.arange(COUNT))
    numbers = search(law, torch.full((COUNT,), limit, dtype=torch.float64), common)
    return numbers, common.candidates(numbers[:, None], len(mean))[:, 0].double()


@pytest.mark.parametrize("mean", [[0.3], [1.5], [0.4, -0.3, 0.0, 0.8]])
def test_what_is_sent_is_the_shifted_law_below_its_limit(mean):
    """The projection is a normal number that is cut off above; across it, nothing is changed."""
    m = np.array(mean)
    length, limit = float(m @ m), 2.0
    _, z = coded(mean, limit)
    projection = z.numpy() @ m / length**0.5
    top = (limit + length / 2) / length**0.5
    expected = stats.truncnorm(-np.inf, top - length**0.5, loc=length**0.5)
    assert stats.kstest(projection, expected.cdf).pvalue > 0.001
    if len(mean) > 1:
        across = np.array([mean[1], -mean[0], 0, 0]) / math.hypot(*mean[:2])
        assert stats.kstest(z.numpy() @ across, "norm").pvalue > 0.001


def test_a_block_of_no_divergence_is_the_first_candidate():
    numbers, _ = coded([0.0, 0.0], 0.0)
    assert numbers.tolist() == [0] * COUNT


@pytest.mark.parametrize("mean", [[0.5], [1.5], [1.2, 1.2, 1.2]])
def test_the_number_is_as_short_as_the_theorem_says(mean):
    """E log2 i ≤ KL + log2(e) / e + 1: the module's (1)."""
    divergence = sum(m * m for m in mean) / 2 / math.log(2)
    numbers, _ = coded(mean, 6.0)
    bits = (numbers + 1).double().log2()
    assert 0 < float(bits.mean()) < divergence + INDEX_BITS


def test_of_points_on_a_line_the_chosen_one_is_the_least_of_all():
    """Against a search through so many more candidates that none left can be the least."""
    mean = torch.tensor([[1.1, -0.4]], dtype=torch.float64).expand(300, -1)
    law, common, limit = Shifted.free(mean), Common(5, 3, torch.arange(300)), 3.0
    found = search(law, torch.full((300,), limit, dtype=torch.float64), common)
    numbers = torch.arange(1000).expand(300, -1)
    z = common.candidates(numbers, 2).double()
    log_ratio = (z @ mean[0]) - float(mean[0] @ mean[0]) / 2
    score = common.waits(numbers).cumsum(1).log() - log_ratio
    score[log_ratio > limit] = math.inf
    assert torch.equal(found, score.argmin(1))


def conditioned(floor: float, mean: float, rest: float) -> Shifted:
    column = torch.full((COUNT,), 1.0, dtype=torch.float64)
    return Shifted(mean * column[:, None], floor * column, rest * column)


def density(z: np.ndarray, floor: float, mean: float, rest: float) -> np.ndarray:
    """N(z; mean, 1) where z and a normal N(rest, rest) reach the floor together, unnormalised."""
    return stats.norm.pdf(z, mean) * stats.norm.sf(floor - mean * z, rest, max(rest, 1e-300) ** 0.5)


@pytest.mark.parametrize(("floor", "rest"), [(2.0, 0.7), (2.5, 0.2), (1.0, 0.0)])
def test_given_a_floor_the_parts_law_is_bayes(floor, rest):
    """The ratio against numerical integration; and the sender's own draws and what is sent by the same law."""
    mean = 0.9
    law = conditioned(floor, mean, rest)
    kink = [floor / mean] if rest == 0 else None
    whole = integrate.quad(density, -10, 12, args=(floor, mean, rest), points=kink, limit=200)[0]
    at = np.array([-0.5, 0.8, 1.7, 3.0])
    with np.errstate(divide="ignore"):
        expected = np.log(density(at, floor, mean, rest) / whole / stats.norm.pdf(at))
    found = law[:1].log_ratio(torch.from_numpy(mean * at)[None])[0].numpy()
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-9)

    def cdf(values: np.ndarray) -> np.ndarray:
        grid = np.linspace(-8, 10, 200_001)
        below = np.cumsum(density(grid, floor, mean, rest))
        return np.interp(values, grid, below / below[-1])

    common = Common(2, 1, torch.arange(COUNT), part=1)
    projection, own = law.draw(common)
    assert np.allclose(own[:, 0] * mean, projection, atol=1e-12)
    assert stats.kstest(own[:, 0].numpy(), cdf).pvalue > 0.001
    top = torch.full((COUNT, 1), 4.5 * mean, dtype=torch.float64)  # above it lies a sample of 3,000
    limit = law.log_ratio(top)[:, 0]
    sent = common.candidates(search(law, limit, common)[:, None], 1)[:, 0, 0]
    assert stats.kstest(sent.numpy(), cdf).pvalue > 0.001


def test_parts_follow_from_one_another_to_the_whole_block():
    """Part after part by the sender's own draws: the whole exceeds the floor and has its truncated law."""
    count, floor = 600, 4.0
    mean = torch.tensor([[0.9, -0.5, 0.7]], dtype=torch.float64)
    length = float(mean.square().sum())
    law = Shifted(mean, torch.tensor([floor], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    totals = []
    for block in range(count):
        z = torch.zeros(1, 3, dtype=torch.float64)
        for part in range(3):
            rows = slice(part, part + 1)
            z[:, rows] = law.part(rows, z).draw(Common(1, 1, torch.tensor([block]), part + 1))[1]
        totals.append(float((z * mean).sum()))
    expected = stats.truncnorm((floor - length) / length**0.5, np.inf, loc=length, scale=length**0.5)
    assert min(totals) >= floor
    assert stats.kstest(totals, expected.cdf).pvalue > 0.001


def test_a_limit_is_exceeded_as_often_as_its_deviations_say():
    mean = torch.tensor([[0.7, 0.1, 1.0]], dtype=torch.float64).expand(COUNT, -1)
    law = Shifted.free(mean)
    projection, z = law.draw(Common(0, 1, torch.arange(COUNT)))
    assert np.allclose((z * mean).sum(1), projection)
    exceeding = int((law.log_ratio(projection[:, None])[:, 0] > limits(law, 99.0, 1.5)).sum())
    assert stats.binomtest(exceeding, COUNT, stats.norm.sf(1.5)).pvalue > 0.001
    assert limits(law, 0.3).tolist() == [0.3] * COUNT
