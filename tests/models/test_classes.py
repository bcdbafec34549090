"""Which image is of which class, and which labels are hidden: pure functions of numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from models.classes import NO_CLASS, Cycle, Shares, hidden
from models.noise import Noise


def test_as_many_labels_are_hidden_as_asked():
    classes = torch.arange(400_000) % 10
    for share in (0.1, 0.25):
        lost = hidden(classes, Noise(3, torch.arange(400_000)), share) == NO_CLASS
        assert abs(float(lost.double().mean()) - share) < 4 * (share * (1 - share) / 400_000) ** 0.5
        for c in range(10):
            assert (
                abs(float(lost[classes == c].double().mean()) - share) < 4 * (share * (1 - share) / 40_000) ** 0.5
            )


def test_none_or_all_of_them_can_be_hidden_and_the_others_stay_as_they_are():
    classes, noise = torch.arange(1000) % 7, Noise(0, torch.arange(1000))
    assert torch.equal(hidden(classes, noise, 0.0), classes)
    assert set(hidden(classes, noise, 1.0).tolist()) == {NO_CLASS}
    told = hidden(classes, noise, 0.5)
    assert torch.equal(told[told != NO_CLASS], classes[told != NO_CLASS])


def test_whether_a_label_is_hidden_depends_on_the_seed_and_the_images_number_alone():
    classes, noise = torch.arange(1000) % 7, Noise(5, torch.arange(1000))
    whole = hidden(classes, noise, 0.3)
    torch.manual_seed(1)
    assert torch.equal(hidden(classes[400:500], noise[400:500], 0.3), whole[400:500])
    assert not torch.equal(hidden(classes, Noise(6, torch.arange(1000)), 0.3), whole)


def test_a_cycle_goes_round():
    assert Cycle((3, 5, 0))(torch.tensor([0, 1, 2, 3, 301])).tolist() == [3, 5, 0, 3, 5]


@given(some.lists(some.integers(0, 5000), min_size=1, max_size=12).filter(sum), some.integers(0, 10**12))
def test_any_run_of_images_has_the_classes_in_proportion(counts, start):
    found = torch.bincount(Shares(tuple(counts))(torch.arange(start, start + 2000)), minlength=len(counts))
    expected = 2000 * torch.tensor(counts) / sum(counts)
    assert float((found - expected).abs().max()) < 7
    assert not found[torch.tensor(counts) == 0].any()


def test_the_shares_are_those_of_the_labels():
    labels = torch.tensor([2, 2, 0, 2])
    assert Shares.of(labels) == Shares((1, 0, 3))
    assert Shares.of(labels)(torch.arange(400)).bincount(minlength=3).tolist() == pytest.approx(
        [100, 0, 300], abs=2
    )
