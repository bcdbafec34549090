"""The order is a permutation, uniform, pinned, and the same for every world size."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from data_pipeline.order import (
    Order,
    Purpose,
    augmentation_words,
    epoch_order,
    positions_of_rank,
    random_words,
)

SEEDS = st.integers(0, 2**64 - 1)


def philox_4x64_10(counter: int, key: int) -> list[int]:
    """Salmon et al. 2011, written independently of numpy."""
    mask = 2**64 - 1
    c = [counter >> (64 * i) & mask for i in range(4)]
    k = [key & mask, key >> 64]
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(b >> 64) ^ c[1] ^ k[0], b & mask, (a >> 64) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return c


def test_the_oracle_reproduces_the_known_answers_of_random123() -> None:
    zeros = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    ones = [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]
    assert philox_4x64_10(0, 0) == zeros
    assert philox_4x64_10(2**256 - 1, 2**128 - 1) == ones


@given(SEEDS, st.sampled_from(Purpose), st.integers(0, 2**200), st.integers(1, 9))
def test_random_words_are_philox_blocks_after_the_counter(
    seed: int, purpose: Purpose, counter: int, blocks: int
) -> None:
    key = seed | purpose << 64
    expected = [word for block in range(blocks) for word in philox_4x64_10(counter + 1 + block, key)]
    assert random_words(seed, purpose, counter, 4 * blocks).tolist() == expected


def test_orders_are_pinned() -> None:
    # A change here changes every training run: it must be deliberate.
    assert epoch_order(0, 0, 10).tolist() == [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    assert epoch_order(7, 3, 10).tolist() == [1, 7, 9, 2, 6, 4, 0, 8, 3, 5]
    assert augmentation_words(7, np.array([5])).tolist() == [
        [0x83009E8EE12E8866, 0xDD7C3261A09987C7, 0xA2ADF45D9AC12CFA, 0xF394A2B8B126BF1D]
    ]


@given(SEEDS, st.integers(0, 2**40), st.integers(1, 300))
def test_an_epoch_is_a_permutation(seed: int, epoch: int, size: int) -> None:
    assert sorted(epoch_order(seed, epoch, size).tolist()) == list(range(size))


def test_all_permutations_are_equally_likely() -> None:
    orders = [tuple(epoch_order(11, epoch, 4).tolist()) for epoch in range(2400)]
    counts = [orders.count(order) for order in permutations(range(4))]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_places_are_uniform_and_epochs_independent() -> None:
    places = np.array([np.argsort(epoch_order(5, epoch, 12))[0] for epoch in range(4000)])
    assert stats.chisquare(np.bincount(places, minlength=12)).pvalue > 1e-3
    pairs = np.histogram2d(places[:-1], places[1:], bins=12)[0]
    assert stats.chi2_contingency(pairs).pvalue > 1e-3


def test_seeds_epochs_and_purposes_are_kept_apart() -> None:
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    streams = {tuple(random_words(0, purpose, 0, 4)) for purpose in Purpose}
    assert len(streams) == len(Purpose)


def test_flip_bits_are_fair_and_words_are_one_block_each() -> None:
    words = augmentation_words(3, np.arange(20_000))
    heads = int((words[:, 0] >> np.uint64(63)).sum())
    assert stats.binomtest(heads, 20_000).pvalue > 1e-3
    scattered = np.array([781, 777, 779])
    np.testing.assert_array_equal(augmentation_words(3, scattered), words[scattered])


@given(st.integers(0, 10**12), st.integers(1, 50), st.integers(1, 50))
def test_the_ranks_together_load_the_global_batch(cursor: int, share: int, world: int) -> None:
    parts = [positions_of_rank(cursor, share * world, rank, world) for rank in range(world)]
    assert [p for part in parts for p in part] == list(range(cursor, cursor + share * world))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 0, 3), r"data\.batch must be a positive multiple of the number of ranks \(3\), got 10"),
        ((0, 0, 0, 1), r"data\.batch must be a positive multiple"),
        ((-1, 4, 0, 1), "cursor must be a stream position >= 0, got -1"),
        ((0, 4, 2, 2), "rank 2 of world 2"),
    ],
)
def test_bad_shares_are_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        positions_of_rank(*arguments)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_must_fit_in_64_bits(seed: int) -> None:
    with pytest.raises(ValueError, match="seed must be an integer in"):
        epoch_order(seed, 0, 4)


@given(SEEDS, st.integers(1, 20), st.integers(0, 100), st.integers(0, 70))
def test_samples_cross_epochs(seed: int, size: int, start: int, count: int) -> None:
    endless = [int(i) for epoch in range(180 // size + 1) for i in epoch_order(seed, epoch, size)]
    assert Order(seed, [size]).samples(np.arange(start, start + count)).tolist() == endless[start : start + count]


def test_following_goes_once_round_the_epoch_from_a_random_place() -> None:
    epoch, order = epoch_order(9, 2, 40).tolist(), Order(9, [40])
    firsts = set()
    for place in range(40):
        found = list(order.following(2 * 40 + place))
        start = epoch.index(found[0])
        assert found == [sample for sample in epoch[start:] + epoch[:start] if sample != epoch[place]]
        firsts.add(found[0])
    assert len(firsts) > 15


def test_what_follows_a_lost_shard_is_many_samples_of_the_next() -> None:
    order = Order(0, [500] * 20, window=1)
    samples = order.samples(np.arange(1000))
    lost, after = order.shards(samples[[0, 500]]).tolist()
    firsts = [next(iter(order.following(position))) for position in range(500)]
    assert set(order.shards(np.array(firsts)).tolist()) == {after} != {lost}
    assert len(set(firsts)) > 250  # of independent draws, 316


def test_only_two_epochs_of_one_window_are_kept() -> None:
    order = Order(1, [5])
    for epoch in (0, 1, 2, 3, 0):
        order.samples(np.arange(5 * epoch, 5 * epoch + 5))
    assert len(order._shuffled) == 2


def test_an_order_needs_samples() -> None:
    with pytest.raises(ValueError, match="an order needs at least one sample, got 2 shards without any"):
        Order(0, [0, 0])
