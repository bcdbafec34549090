"""The order of samples, as pure integers: nothing here reads a file or keeps a random state.

A *stream position* p counts samples since the start of training: it is place ``p % size`` of epoch ``p //
size``. Epochs are permutations keyed by (seed, epoch), augmentations are keyed by (seed, position), and a
rank's part of a global batch is a slice of its positions. So global batch k is the same for every number of
ranks and workers, and the whole state of the data pipeline is one integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import chain

import numpy as np
from jaxtyping import Int64, UInt64

from data_pipeline.recent import Recent
from data_pipeline.shuffle import Shuffled, ascending, shuffled
from data_pipeline.windows import Windows

AT_ONCE = 16  # substitutes


class Purpose(IntEnum):
    """Keeps random streams of one seed apart: it is the high word of the Philox key."""

    ORDER = 1
    AUGMENTATION = 2
    PREPARATION = 3
    SYNTHESIS = 4
    SHARDS = 5
    SUBSTITUTES = 6


def random_words(seed: int, purpose: Purpose, counter: int, count: int) -> UInt64[np.ndarray, " count"]:
    """The first ``count`` raw 64-bit words of Philox 4x64-10 after ``counter``.

    numpy increments the counter before each block of four words, so these are the blocks counter+1,
    counter+2, … Only the raw words are used, because numpy guarantees them across versions and does not
    guarantee what ``Generator.permutation`` makes of them.

    Raises:
        ValueError: the seed does not fit in 64 bits.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be an integer in [0, 2^64), got {seed}")
    return np.random.Philox(key=seed | (purpose << 64), counter=counter).random_raw(count)


def epoch_order(seed: int, epoch: int, size: int) -> Int64[np.ndarray, " size"]:
    """The permutation of ``range(size)`` in which epoch ``epoch`` visits the samples."""
    return ascending(order_words(seed, epoch, 0, size))


def order_words(seed: int, epoch: int, begin: int, end: int) -> UInt64[np.ndarray, " n"]:
    """The random words of samples begin .. end - 1 in an epoch: four samples share a block."""
    block = begin // 4
    words = random_words(seed, Purpose.ORDER, (epoch << 64) + block, end - 4 * block)
    return words[begin - 4 * block :]


def position_words(seed: int, purpose: Purpose, start: int, count: int) -> UInt64[np.ndarray, "count 4"]:
    """Four random words for each of the positions ``start … start+count-1``: one Philox block each."""
    return random_words(seed, purpose, start, 4 * count).reshape(count, 4)


def augmentation_words(seed: int, positions: Int64[np.ndarray, " count"]) -> UInt64[np.ndarray, "count 4"]:
    """The words that decide the flip and the crop at each of these positions of one batch, whoever loads it."""
    first, last = int(positions.min()), int(positions.max())
    words = position_words(seed, Purpose.AUGMENTATION, first, last - first + 1)
    return np.take(words, positions - first, axis=0)


def positions_of_rank(cursor: int, batch: int, rank: int, world: int) -> range:
    """The stream positions that ``rank`` of ``world`` loads of the global batch ``[cursor, cursor + batch)``.

    Raises:
        ValueError: a negative cursor, a rank outside the world, or a batch that the world does not divide.
    """
    if cursor < 0:
        raise ValueError(f"cursor must be a stream position >= 0, got {cursor}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must be in [0, world), got rank {rank} of world {world}")
    if batch < 1 or batch % world:
        raise ValueError(
            f"data.batch must be a positive multiple of the number of ranks ({world}), got {batch}: "
            "it is the global batch, and every rank takes an equal share of it"
        )
    share = batch // world
    return range(cursor + rank * share, cursor + (rank + 1) * share)


def check_micro_batches(batch: int, world: int, accumulation: int) -> None:
    """Raises ValueError where a batch does not divide into ``world`` ranks of ``accumulation`` micro-batches."""
    share = len(positions_of_rank(0, batch, 0, world))
    if accumulation < 1 or share % accumulation:
        raise ValueError(
            f"data.batch must divide into {world} ranks of {accumulation} micro-batches each, "
            f"got {batch}, which is {share} images per rank"
        )


class Order:
    """Which sample stands at each stream position, over all epochs. Thread-safe.

    An epoch lays the shards out in an order of its own, cuts them into lanes and windows (see ``Windows``), and
    sorts the samples of each window by random words. A sample's word is a function of (seed, epoch) and its number
    alone, so one lane that is one window is ``epoch_order``. A window is made when it is first read, and two for
    each lane are kept: batches cross their borders, and workers run ahead.

    Args:
        sizes: how many samples each shard holds; it may be none.
        window: how many shards are shuffled together; 0 for all of a lane.
        lanes: into how many stretches of shards an epoch is cut; position p belongs to lane p modulo ``lanes``.
    """

    def __init__(self, seed: int, sizes: Sequence[int], window: int = 0, lanes: int = 1) -> None:
        assert window >= 0, window
        assert lanes >= 1, lanes
        self.seed = seed
        self._starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        self.size = int(self._starts[-1])
        if self.size < 1:
            raise ValueError(f"an order needs at least one sample, got {len(sizes)} shards without any")
        self.window, self.lanes = window, min(lanes, self.size)
        self._filled = np.flatnonzero(np.diff(self._starts))
        self._epochs = Recent(self._epoch, most=2)
        self._shuffled = Recent(self._shuffle, most=2 * self.lanes)

    def positions(self, cursor: int, batch: int, rank: int, world: int) -> Int64[np.ndarray, " share"]:
        """The stream positions that ``rank`` of ``world`` loads of the global batch ``[cursor, cursor + batch)``.

        The batch is sorted by lane and then dealt out in slices, so that neighbouring ranks read neighbouring
        shards.

        Raises:
            ValueError: as ``positions_of_rank``.
        """
        share = positions_of_rank(cursor, batch, rank, world)
        positions = np.arange(cursor, cursor + batch)
        by_lane = np.argsort(positions % self.lanes, kind="stable")
        return positions[by_lane[share.start - cursor : share.stop - cursor]]

    def samples(self, positions: Int64[np.ndarray, " count"]) -> Int64[np.ndarray, " count"]:
        """The dataset indices at these stream positions."""
        samples = np.empty(len(positions), np.int64)
        for epoch, windows, inside, spots in self._laid_out(positions):
            samples[inside] = self._samples_at(epoch, windows, spots)
        return samples

    def shards(self, samples: Int64[np.ndarray, " count"]) -> Int64[np.ndarray, " count"]:
        """The number of the shard that holds each sample."""
        return np.searchsorted(self._starts, samples, side="right") - 1

    def following(self, position: int) -> Iterator[int]:
        """The other samples of a position's epoch, its substitutes, from a random one of the next window on.

        The same for every rank and worker, so that a skipped sample leaves global batches aligned. The shards of
        the next window are wanted soon in any case, and a shard that is lost with all of a window has substitutes
        there, not one sample for all of its own.
        """
        [(epoch, windows, _, spot)] = self._laid_out(np.array([position]))
        number = (int(windows.numbers(spot)[0]) + 1) % len(windows)
        begin, end = windows.starts[number : number + 2].tolist()
        word = int(random_words(self.seed, Purpose.SUBSTITUTES, position, 1)[0])
        first = begin + word % (end - begin)
        for start in chain((0,), range(1, self.size, AT_ONCE)):  # mostly one is enough
            spots = (first + np.arange(start, min(start + AT_ONCE, self.size) if start else 1)) % self.size
            others = spots[spots != spot]
            if len(others):
                yield from self._samples_at(epoch, windows, others).tolist()

    def shards_ahead(self, cursor: int, batch: int, rank: int, world: int, windows: int = 2) -> Iterator[int]:
        """The shards that a rank reads from a cursor on, each once, in the order in which it first needs them.

        They end where each lane has read ``windows`` windows, of which the first is the one that it stands in. The
        batches are followed one by one, as far as shards are asked for.
        """
        limits = self._limits(cursor, windows)
        seen: set[int] = set()
        while cursor < limits.max():
            positions = self.positions(cursor, batch, rank, world)
            wanted = positions[positions < limits[positions % self.lanes]]
            shards = dict.fromkeys(self.shards(self.samples(wanted)).tolist())
            yield from (shard for shard in shards if shard not in seen)
            seen.update(shards)
            cursor += batch

    def _samples_at(self, epoch: int, windows: Windows, spots: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The dataset indices that an epoch reads at these spots."""
        numbers = windows.numbers(spots)
        within = spots - windows.starts[numbers]
        by_window = np.argsort(numbers, kind="stable")
        samples = np.empty_like(spots)
        for part in np.split(by_window, np.flatnonzero(np.diff(numbers[by_window])) + 1):
            samples[part] = self._shuffled[epoch, int(numbers[part[0]])][within[part]]
        return samples

    def _limits(self, cursor: int, windows: int) -> Int64[np.ndarray, " lanes"]:
        """The position at which each lane has read so many windows, from a cursor on."""
        limits = cursor + (np.arange(self.lanes) - cursor) % self.lanes
        for _ in range(windows):
            for epoch, cut, inside, spots in self._laid_out(limits):
                limits[inside] = epoch * self.size + cut.after(spots)
        return limits

    def _laid_out(
        self, positions: Int64[np.ndarray, " n"]
    ) -> Iterator[tuple[int, Windows, np.ndarray, np.ndarray]]:
        """The epochs that the positions lie in, each with its windows, which of the positions, and their spots."""
        epochs, places = np.divmod(positions, self.size)
        for epoch in np.unique(epochs).tolist():
            inside, windows = np.flatnonzero(epochs == epoch), self._epochs[epoch]
            yield epoch, windows, inside, windows.spots(places[inside])

    def _epoch(self, epoch: int) -> Windows:
        shards = self._filled[ascending(random_words(self.seed, Purpose.SHARDS, epoch << 64, len(self._filled)))]
        begins, sizes = self._starts[shards], np.diff(self._starts)[shards]
        return Windows(begins, sizes, self.window, self.lanes, turn=epoch * self.size % self.lanes)

    def _shuffle(self, window: tuple[int, int]) -> Shuffled:
        epoch, number = window
        begins, ends = self._epochs[epoch].spans(number)
        words = [order_words(self.seed, epoch, *span) for span in zip(begins.tolist(), ends.tolist(), strict=True)]
        return shuffled(begins, ends, np.concatenate(words) if len(words) > 1 else words[0])
