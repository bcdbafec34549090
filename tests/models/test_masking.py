"""Autoregressive models as diffusion: on a table of probabilities the bound is -ln p, and samples have its law."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from models.diffusion import Chain
from models.distributions import Categorical
from models.masking import MaskingProcess, ValueProbability, bound, sample
from models.noise import Noise
from models.processes import GaussianProcess
from models.schedules import Reciprocal

PLACES, VALUES = 4, 3
TABLE = np.random.default_rng(0).dirichlet(np.full(VALUES**PLACES, 0.5)).reshape([VALUES] * PLACES)
ALL = torch.tensor(list(itertools.product(range(VALUES), repeat=PLACES)), dtype=torch.float64)
SEQUENCES = ALL.reshape(-1, 1, 1, PLACES)


def conditionals(x: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
    """ln p of each value of each place, given the places that are not blank: sums over the table, one by one."""
    said = torch.zeros(len(x), VALUES, 1, PLACES, dtype=torch.float64)
    for row, sequence in enumerate(x[:, 0, 0].long().tolist()):
        seen = tuple(slice(None) if value == VALUES else slice(value, value + 1) for value in sequence)
        for place in range(PLACES):
            marginal = TABLE[seen].sum(axis=tuple(other for other in range(PLACES) if other != place))
            if sequence[place] == VALUES:
                said[row, :, 0, place] = torch.from_numpy(np.log(marginal / marginal.sum()))
    return said


def chain(steps: int = PLACES, network=conditionals) -> Chain:
    return Chain(MaskingProcess(Reciprocal(steps), VALUES), ValueProbability(VALUES), network)


def test_each_step_blanks_the_next_place():
    process, x_0 = chain().process, SEQUENCES[40:41]
    path = [process.marginal(x_0, t).mode[0, 0, 0].tolist() for t in range(PLACES + 1)]
    assert path == [[1, 1, 1, 1], [3, 1, 1, 1], [3, 3, 1, 1], [3, 3, 3, 1], [3, 3, 3, 3]]
    at = process.marginal(x_0.repeat(2, 1, 1, 1), torch.tensor([1, 3])).mode
    assert at[:, 0, 0].tolist() == [path[1], path[3]]
    assert torch.equal(process.prior(Noise(0, torch.arange(1)), (1, 1, PLACES)), process.blank(x_0).float())


def test_with_the_true_conditionals_the_bound_is_the_negative_log_likelihood():
    terms = bound(chain(), SEQUENCES)
    assert np.allclose(terms.sum(1).exp().numpy() ** -1, TABLE.ravel(), rtol=1e-10)
    assert terms[:, -1].tolist() == [0.0] * len(SEQUENCES)


def test_each_term_is_the_surprise_of_one_place_given_those_after_it():
    terms = bound(chain(), SEQUENCES).numpy()
    for place in range(PLACES):
        over = tuple(range(place))
        joint = TABLE.sum(axis=over, keepdims=True)
        given = joint / joint.sum(axis=place, keepdims=True)
        expected = -np.log(np.broadcast_to(given, TABLE.shape)).ravel()
        assert np.allclose(terms[:, place], expected, atol=1e-12)


def test_with_other_conditionals_the_bound_has_their_divergence_above_the_entropy():
    """A network that knows nothing: ln 3 for each place, which exceeds the table's entropy by the divergence."""
    terms = bound(chain(network=lambda x, t, condition: torch.zeros(len(x), VALUES, 1, PLACES)), SEQUENCES)
    assert terms.sum(1).tolist() == pytest.approx([PLACES * math.log(VALUES)] * len(SEQUENCES))


def test_two_places_at_once_lose_what_they_know_of_each_other():
    """T = 2: the mean bound is the entropy and the two conditional informations between the places of a step."""
    mean = float(torch.from_numpy(TABLE.ravel()) @ bound(chain(2), SEQUENCES).sum(1))

    def entropy(*places: int) -> float:
        table = TABLE.sum(axis=tuple(place for place in range(PLACES) if place not in places))
        return float(stats.entropy(table.ravel()))

    first = entropy(0, 2, 3) + entropy(1, 2, 3) - 2 * entropy(2, 3)
    assert mean == pytest.approx(first + entropy(2) + entropy(3), rel=1e-10)
    assert mean > entropy(0, 1, 2, 3) + 0.05


def test_samples_have_the_tables_law():
    count = 6000
    x = sample(chain(), (1, 1, PLACES), Noise(3, torch.arange(count)))[:, 0, 0].long().numpy()
    found = np.zeros_like(TABLE)
    np.add.at(found, tuple(x.T), 1)
    often = count * TABLE >= 5
    expected = np.append(count * TABLE[often], count * TABLE[~often].sum())
    assert stats.chisquare(np.append(found[often], found[~often].sum()), expected).pvalue > 0.001


def test_a_categorical_law_is_scipys():
    p, other = np.array([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]]), np.array([[0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
    law = Categorical(torch.from_numpy(p))
    assert np.allclose(law.entropy(), stats.entropy(p, axis=1))
    assert np.allclose(law.kl(Categorical(torch.from_numpy(other))), stats.entropy(p, other, axis=1))
    assert law.log_prob(torch.tensor([2.0, 0.0])).tolist() == [pytest.approx(math.log(0.3)), -math.inf]
    assert law.mode.tolist() == [1.0, 1.0]
    noise = (torch.arange(1000, dtype=torch.float64)[:, None] + 0.5) / 1000
    values = law.sample(noise.expand(-1, 2)).long()
    assert torch.bincount(values[:, 0]).tolist() == [200, 500, 300]
    assert set(values[:, 1].tolist()) == {1}
    assert law.sample(torch.ones(2, dtype=torch.float64)).tolist() == [2.0, 1.0]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"whole numbers from 0 to 2, got values from 0\.5"):
        bound(chain(), SEQUENCES + 0.5)
    with pytest.raises(ValueError, match=r"parameterization\.values must be those of"):
        Chain(MaskingProcess(Reciprocal(PLACES), 2), ValueProbability(VALUES), conditionals)
    with pytest.raises(ValueError, match="needs a MaskingProcess"):
        Chain(GaussianProcess(), ValueProbability(VALUES), conditionals)
