"""The order of samples, as pure integers: nothing here reads a file or keeps a random state.

A *stream position* p counts samples since the start of training: it is place ``p % size`` of epoch ``p //
size``. Epochs are permutations keyed by (seed, epoch), augmentations are keyed by (seed, position), and a
rank's part of a global batch is a slice of its positions. So global batch k is the same for every number of
ranks and workers, and the whole state of the data pipeline is one integer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
from jaxtyping import Int64, UInt64


class Purpose(IntEnum):
    """Keeps random streams of one seed apart: it is the high word of the Philox key."""

    ORDER = 1
    AUGMENTATION = 2
    PREPARATION = 3
    SYNTHESIS = 4


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
    words = random_words(seed, Purpose.ORDER, epoch << 64, size)
    return np.argsort(words, kind="stable")


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

    The two epochs used last are kept (16 bytes per sample): batches cross an epoch's border, and workers run
    ahead.
    """

    def __init__(self, seed: int, size: int) -> None:
        if size < 1:
            raise ValueError(f"an order needs at least one sample, got size {size}")
        self.seed = seed
        self.size = size
        self._epochs: dict[int, Int64[np.ndarray, " size"]] = {}
        self._lock = threading.Lock()

    def epoch(self, epoch: int) -> Int64[np.ndarray, " size"]:
        """The permutation of one epoch, read-only."""
        with self._lock:
            permutation = self._epochs.pop(epoch, None)
            if permutation is None:
                permutation = epoch_order(self.seed, epoch, self.size)
                permutation.setflags(write=False)
            self._epochs[epoch] = permutation
            if len(self._epochs) > 2:
                del self._epochs[next(iter(self._epochs))]
            return permutation

    def positions(self, cursor: int, batch: int, rank: int, world: int) -> Int64[np.ndarray, " share"]:
        """The stream positions that ``rank`` of ``world`` loads of the global batch ``[cursor, cursor + batch)``.

        Raises:
            ValueError: as ``positions_of_rank``.
        """
        share = positions_of_rank(cursor, batch, rank, world)
        return np.arange(share.start, share.stop)

    def samples(self, positions: Int64[np.ndarray, " count"]) -> Int64[np.ndarray, " count"]:
        """The dataset indices at these stream positions."""
        epochs, places = np.divmod(positions, self.size)
        samples = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            samples[inside] = self.epoch(int(epoch))[places[inside]]
        return samples

    def following(self, position: int) -> Iterator[int]:
        """The samples after a position in its epoch's order, wrapping at the epoch's end: its substitutes.

        The same for every rank and worker, so that a skipped sample leaves global batches aligned.
        """
        epoch, place = divmod(position, self.size)
        order = self.epoch(epoch)
        for step in range(1, self.size):
            yield int(order[(place + step) % self.size])
