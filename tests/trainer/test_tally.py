"""Tally: means by quarter of t of what is finite, over any number of ranks, and the first step that was not."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.trainer import tiny
from trainer.tally import NAMED, Sums, Tally, first_bad, means

FOLDED = mock.patch("trainer.tally.FOLD", 2)  # so that few steps are added up in several goes
LOSSES = some.one_of(some.floats(0, 10, width=32), some.sampled_from([math.nan, math.inf, -math.inf]))
SAMPLES = some.tuples(LOSSES, some.floats(0, 1))
BATCHES = some.integers(1, 9).flatmap(
    lambda size: some.lists(some.lists(SAMPLES, min_size=size, max_size=size), min_size=1)
)


def tallied(steps: int, batches: list) -> tuple[Sums, np.ndarray, np.ndarray, np.ndarray]:
    """The sums over batches of (loss, t / T), and all losses, t and norms, of which every third is not finite."""
    tally, losses, times, norms = Tally(steps, tiny.CPU), [], [], []
    for number, batch in enumerate(batches):
        loss, t = [loss for loss, _ in batch], [1 + min(int(share * steps), steps - 1) for _, share in batch]
        norm = math.inf if number % 3 == 2 else float(number)
        tally.add(tiny.report(loss, t, norm), images=number)
        losses, times, norms = losses + loss, times + t, [*norms, norm]
    return tally.clear(), np.array(losses), np.array(times), np.array(norms)


@FOLDED
@given(some.integers(4, 1000), some.lists(BATCHES, min_size=1, max_size=3))
def test_means_are_numpys_in_all_and_by_quarter(steps, ranks):
    sums, losses, times, norms = zip(*(tallied(steps, batches) for batches in ranks), strict=True)
    found, losses, times, norms = means(sums), *(np.concatenate(each) for each in (losses, times, norms))
    fine = np.isfinite(losses)
    expected = {
        "loss": losses[fine].mean() if fine.any() else math.nan,
        "gradient_norm": norms[np.isfinite(norms)].mean(),
    }
    for quarter in range(1, 5):
        # Quarter q holds the t with (q - 1) / 4 < t / T <= q / 4, where T divides by 4.
        belongs = (4 * (times - 1) >= (quarter - 1) * steps) & (4 * (times - 1) < quarter * steps) & fine
        if belongs.any():
            expected[f"loss_by_t/quarter_{quarter}"] = losses[belongs].mean()
    assert found.keys() == expected.keys()
    assert all(found[tag] == pytest.approx(value, rel=1e-12, nan_ok=True) for tag, value in expected.items())
    assert sum(each.skipped for each in sums) == (~np.isfinite(norms)).sum()


def test_a_look_clears_the_sums():
    tally = Tally(1000, tiny.CPU)
    tally.add(tiny.report([100.0, math.nan], [1, 1000], 50.0), images=10)
    tally.clear()
    tally.add(tiny.report([1.0], [500], 2.0), images=20)
    sums = tally.clear()
    assert means([sums]) == {"loss": 1.0, "gradient_norm": 2.0, "loss_by_t/quarter_2": 1.0}
    assert (sums.bad, sums.row, sums.skipped) == (None, 0, 0)


@FOLDED
@given(some.lists(some.booleans(), min_size=1, max_size=30), some.integers(0, 30))
def test_the_longest_row_counts_over_looks(bad, look):
    tally, found, row, longest = Tally(1000, tiny.CPU), [], 0, 0
    for number, each in enumerate(bad):
        tally.add(tiny.report([math.nan if each else 1.0], [1]), images=number)
        row = row + 1 if each else 0
        longest = max(longest, row)
        if number == look or number == len(bad) - 1:
            found.append((tally.clear().row, longest))
            longest = 0
    assert all(row == expected for row, expected in found), "a row that a look falls into is whole in the next"


@FOLDED
@pytest.mark.parametrize("size", [2, NAMED, 20])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_the_first_bad_step_is_kept_with_its_samples(size, count):
    count = min(count, size)
    places = np.random.default_rng(0).permutation(size)[:count]
    loss, t, index = np.ones(size, np.float32), np.arange(1, size + 1), np.arange(100, 100 + size)
    loss[places] = math.nan
    tally = Tally(20, tiny.CPU)
    tally.add(tiny.report([1.0] * size, [1] * size), images=5)
    tally.add(tiny.report(loss.tolist(), t.tolist(), math.nan, index.tolist()), images=10)
    tally.add(tiny.report([math.inf] * size, [3] * size, math.inf), images=15)
    bad = tally.clear().bad
    expected = {100 + int(place): 1 + int(place) for place in sorted(places)[:NAMED]}
    assert (bad.images, bad.first, bad.last, bad.count) == (10, 100, 99 + size, count)
    assert bad.samples == expected


def sums(images: int, loss: list[float], first: int) -> Sums:
    """Of one bad step of samples `first` and on, all at t = 7 of 20."""
    tally = Tally(20, tiny.CPU)
    index = list(range(first, first + len(loss)))
    tally.add(tiny.report(loss, [7] * len(loss), math.nan, index), images)
    return tally.clear()


def test_the_first_bad_step_of_all_ranks_is_told_with_every_rank_that_is_to_blame():
    fine, early = sums(16, [1.0, 1.0], 0), sums(16, [1.0, math.nan], 2)
    late, many = sums(32, [math.nan], 8), sums(16, [math.inf] * (NAMED + 2), 30)
    assert first_bad([late, fine, early], 20) == (
        "at image 16, where the loss was not finite on rank 2: sample 3 (t=7, quarter 2)"
    )
    assert first_bad([fine, sums(16, [1.0], 6)], 20) == (
        "at image 16, where only the gradient was not finite, of the samples 0 to 6"
    )
    told = first_bad([early, many], 20)
    assert "rank 0: sample 3 (t=7, quarter 2); rank 1: sample 30 (t=7, quarter 2), sample 31" in told
    assert told.endswith("sample 37 (t=7, quarter 2) and 2 more")


def test_of_many_ranks_that_are_to_blame_the_first_four_are_told():
    told = first_bad([sums(16, [math.nan], rank) for rank in range(9)], 20)
    assert "rank 3: sample 3 (t=7, quarter 2); and on 5 more ranks" in told
    assert "rank 4" not in told
    assert "more ranks" not in first_bad([sums(16, [math.nan], rank) for rank in range(4)], 20)
