"""Lanes and windows: against the definition written out, for any shards, ranks and cursor, and at scale."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, groupby, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data_pipeline.order import Order, Purpose, epoch_order, random_words

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
ORDERS = st.builds(
    partial, st.just(Order), st.integers(0, 2**64 - 1), SIZES, st.integers(0, 5), st.integers(1, 20)
)
Parts = list[list[list[int]]]


def shard_of(sample: int, sizes: list[int]) -> int:
    return next(shard for shard in range(len(sizes)) if sample < sum(sizes[: shard + 1]))


def parts_of(seed: int, sizes: list[int], window: int, lanes: int, epoch: int) -> Parts:
    """The samples of each window of each lane, written without a thought of speed."""
    words = random_words(seed, Purpose.ORDER, epoch << 64, sum(sizes)).tolist()
    filled = [shard for shard, size in enumerate(sizes) if size]
    of_shards = random_words(seed, Purpose.SHARDS, epoch << 64, len(filled)).tolist()
    shards = [shard for _, shard in sorted(zip(of_shards, filled, strict=True))]
    laid_out = [sum(sizes[:shard]) + row for shard in shards for row in range(sizes[shard])]
    rest, parts = iter(laid_out), []
    lanes, positions = min(lanes, len(laid_out)), range(epoch * len(laid_out), (epoch + 1) * len(laid_out))
    for lane in range(lanes):
        stretch = islice(rest, sum(position % lanes == lane for position in positions))
        pieces = [list(piece) for _, piece in groupby(stretch, lambda sample: shard_of(sample, sizes))]
        each = window or len(sizes)
        windows = [chain(*pieces[i : i + each]) for i in range(0, len(pieces), each)]
        parts.append([sorted(samples, key=lambda sample: (words[sample], sample)) for samples in windows])
    assert list(rest) == []
    return parts


def epoch_of(parts: Parts, epoch: int) -> list[int]:
    """The lanes read in turn, as the positions go."""
    lanes = [chain(*windows) for windows in parts]
    size = sum(len(samples) for windows in parts for samples in windows)
    return [next(lanes[position % len(lanes)]) for position in range(epoch * size, (epoch + 1) * size)]


def expected(order: partial[Order], epochs: int) -> list[int]:
    return [sample for epoch in range(epochs) for sample in epoch_of(parts_of(*order.args, epoch), epoch)]


@settings(max_examples=200)
@given(ORDERS, st.data())
def test_the_order_is_the_definitions(order: partial[Order], data: st.DataObject) -> None:
    size = sum(order.args[1])
    endless, ours = expected(order, 3), order()
    assert ours.samples(np.arange(3 * size)).tolist() == endless
    positions = data.draw(st.lists(st.integers(0, 3 * size - 1), min_size=1, max_size=30))
    assert ours.samples(np.array(positions)).tolist() == [endless[position] for position in positions]


@given(st.integers(0, 2**64 - 1), SIZES, st.integers(0, 2), st.integers(0, 2**40))
def test_one_lane_of_one_window_is_a_full_permutation(seed: int, sizes: list[int], more: int, epoch: int) -> None:
    size = sum(sizes)
    for window in (0, len(sizes) + more):
        samples = Order(seed, sizes, window).samples(np.arange(epoch * size, (epoch + 1) * size))
        np.testing.assert_array_equal(samples, epoch_order(seed, epoch, size))


def test_windows_and_lanes_are_pinned() -> None:
    # A change here changes every training run that has them: it must be deliberate.
    sizes, epoch = [3, 0, 4, 1, 2, 5], np.arange(15)
    one, two, three = Order(7, sizes, window=2), Order(7, sizes, window=2, lanes=2), Order(7, sizes, lanes=3)
    assert one.samples(epoch).tolist() == [12, 11, 13, 1, 2, 0, 14, 10, 9, 8, 7, 3, 6, 5, 4]
    assert two.samples(15 + epoch).tolist() == [11, 2, 13, 0, 4, 7, 6, 1, 5, 8, 10, 9, 14, 3, 12]
    assert three.samples(15 + epoch).tolist() == [2, 4, 11, 0, 6, 13, 8, 5, 10, 7, 9, 14, 1, 3, 12]


@given(ORDERS, st.integers(0, 300), st.integers(1, 6), st.integers(1, 12))
def test_ranks_share_a_batch_lane_by_lane(order: partial[Order], cursor: int, share: int, world: int) -> None:
    ours, batch = order(), share * world
    parts = [ours.positions(cursor, batch, rank, world).tolist() for rank in range(world)]
    by_lane = sorted(range(cursor, cursor + batch), key=lambda p: p % ours.lanes)
    assert parts == [by_lane[i : i + share] for i in range(0, batch, share)]


def test_ranks_read_their_own_lanes_where_these_divide_the_batch() -> None:
    order = Order(0, [10] * 64 + [3], window=2, lanes=8)
    for cursor in range(0, 1300, 16):  # over the borders of epochs, too
        for rank in range(4):
            lanes = order.positions(cursor, 16, rank, 4) % 8
            assert set(lanes.tolist()) == {2 * rank, 2 * rank + 1}


@given(ORDERS, st.integers(0, 200))
def test_substitutes_are_all_others_of_the_epoch(order: partial[Order], position: int) -> None:
    epoch, place = divmod(position, sum(order.args[1]))
    parts = parts_of(*order.args, epoch)
    in_a_row = [sample for windows in parts for samples in windows for sample in samples]
    at = in_a_row.index(epoch_of(parts, epoch)[place])
    others = list(order().following(position))
    if others:
        start = in_a_row.index(others[0])
        assert others == [i for i in in_a_row[start:] + in_a_row[:start] if i != in_a_row[at]]
    assert len(others) == len(in_a_row) - 1


def test_windows_are_made_when_they_are_read_and_two_a_lane_are_kept() -> None:
    order = Order(0, [5] * 100, window=4, lanes=3)
    order.samples(np.arange(3))
    assert len(order._shuffled) == 3
    next(order.following(0))
    assert len(order._shuffled) == 4  # with the next window
    assert len(set(order.following(0))) == 499
    order.samples(np.arange(500))
    assert len(order._shuffled) == 6


def test_threads_read_what_one_reads() -> None:
    order, positions = Order(1, [3, 8, 2] * 20, window=3, lanes=4), np.arange(1000)
    alone = order.samples(positions)
    draws = [np.random.default_rng(seed).integers(0, 1000, 50) for seed in range(100)]
    with ThreadPoolExecutor(8) as threads:
        for draw, samples in zip(draws, threads.map(order.samples, draws), strict=True):
            np.testing.assert_array_equal(samples, alone[draw])


@given(ORDERS, st.integers(0, 100), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.data())
def test_shards_ahead_are_those_that_the_rank_will_read(
    order: partial[Order], cursor: int, share: int, world: int, windows: int, data: st.DataObject
) -> None:
    ours, sizes, rank, batch = order(), order.args[1], data.draw(st.integers(0, world - 1)), share * world
    epochs = (cursor + batch) // ours.size + windows + 3
    endless, numbers = expected(order, epochs), window_numbers(order, epochs)
    lanes = [position % ours.lanes for position in range(len(endless))]
    present = {lanes[position]: numbers[position] for position in reversed(range(cursor, len(endless)))}
    needed: dict[int, None] = {}
    for start in range(cursor, len(endless) - batch, batch):
        for position in ours.positions(start, batch, rank, world).tolist():
            if numbers[position] < present[lanes[position]] + windows:
                needed[shard_of(endless[position], sizes)] = None
    assert list(ours.shards_ahead(cursor, batch, rank, world, windows)) == list(needed)


def window_numbers(order: partial[Order], epochs: int) -> list[int]:
    """Of each position, which window of its lane it lies in, counted from the first epoch on."""
    numbers: list[int] = []
    passed = [0] * order().lanes
    for epoch in range(epochs):
        parts = parts_of(*order.args, epoch)
        lanes = [
            [[number] * len(samples) for number, samples in enumerate(windows, before)]
            for before, windows in zip(passed, parts, strict=True)
        ]
        numbers += epoch_of(lanes, epoch)
        passed = [before + len(windows) for before, windows in zip(passed, parts, strict=True)]
    return numbers


def test_shards_ahead_follow_no_more_batches_than_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(0, [10] * 1000, window=0)
    read: list[int] = []
    samples: Callable[[np.ndarray], np.ndarray] = order.samples
    monkeypatch.setattr(order, "samples", lambda positions: (read.append(len(positions)), samples(positions))[1])
    assert len(list(islice(order.shards_ahead(0, 8, 0, 1), 8))) == 8
    assert read == [8]


def test_a_window_is_shuffled_uniformly() -> None:
    order = Order(2, [3, 3, 3, 3], window=2, lanes=1)
    places = np.empty((2000, 12), np.int64)
    for epoch in range(2000):
        places[epoch, order.samples(np.arange(12 * epoch, 12 * epoch + 12))] = np.arange(12)
    for sample in (0, 7):
        assert stats.chisquare(np.bincount(places[:, sample], minlength=12)).pvalue > 1e-3
    halves = places // 6
    assert (halves[:, 0] == halves[:, 1]).all()
    # A third of the other shards shares the window.
    assert stats.binomtest(int((halves[:, 0] == halves[:, 3]).sum()), 2000, 1 / 3).pvalue > 1e-3


def test_a_thousand_ranks_read_ten_thousand_shards_once_an_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 600, 10_000)
    sizes = (lengths * (3_000_000 / lengths.sum())).astype(np.int64)
    sizes[0] += 3_000_000 - sizes.sum()
    order, batch = Order(5, sizes.tolist(), window=16, lanes=64), 56_000
    whole = order.samples(np.arange(order.size))
    assert np.bincount(whole, minlength=order.size).tolist() == [1] * 3_000_000
    for k in (0, 53):  # the latter crosses the epoch's end
        one = order.samples(order.positions(k * batch, batch, 0, 1))
        for world in (7, 64, 1000):
            positions = [order.positions(k * batch, batch, rank, world) for rank in range(world)]
            assert {len(share) for share in positions} == {batch // world}
            assert np.sort(np.concatenate(positions)).tolist() == list(range(k * batch, (k + 1) * batch))
            np.testing.assert_array_equal(np.concatenate([order.samples(share) for share in positions]), one)
