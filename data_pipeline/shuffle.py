"""Shuffling: samples in the order of their random words, and of many samples only the parts that are read."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64, UInt8, UInt64

from data_pipeline.recent import Recent

PART = 1 << 16  # about so many samples of a large window are sorted together
KEPT = 4  # parts: readers and those who look ahead stand in different ones, and cross borders
Numbers = Int64[np.ndarray, " n"]
Words = UInt64[np.ndarray, " n"]


class Parts:
    """The samples of a large window in the order of their words. Thread-safe.

    The words' upper bits cut the window into parts that follow one another, and a part is sorted when it is first
    read: in a window of millions, a reader who begins anywhere waits for one.
    """

    def __init__(self, begins: Numbers, ends: Numbers, words: Words) -> None:
        several = len(words) // PART
        bits = min(8, several.bit_length())
        # By their highest bytes, counted piece by piece: copies of millions of words cost more than sorting.
        part_of = words.astype("<u8", copy=False).view(np.uint8)[7::8] >> np.uint8(8 - bits)
        counts = [np.bincount(piece, minlength=1 << bits) for piece in np.array_split(part_of, several)]
        self._starts = np.concatenate(([0], np.cumsum(np.sum(counts, axis=0))))
        # Made by no method of this object: it is in no cycle, and its words are freed once it is given up.
        self._parts = Recent(partial(sorted_part, begins, ends, words, part_of), most=KEPT)

    def __getitem__(self, places: Numbers) -> Numbers:
        """The samples at these places of the window."""
        parts = np.searchsorted(self._starts, places, side="right") - 1
        samples = np.empty_like(places)
        for part in np.unique(parts).tolist():
            inside = parts == part
            samples[inside] = self._parts[part][places[inside] - self._starts[part]]
        return samples


def sorted_part(
    begins: Numbers, ends: Numbers, words: Words, part_of: UInt8[np.ndarray, " n"], part: int
) -> Numbers:
    """The samples of the spans whose words are in this part, in the order of these words."""
    members = np.flatnonzero(part_of == part)
    members = members[ascending(words[members])]
    span_starts = np.cumsum(ends - begins) - (ends - begins)
    spans = np.searchsorted(span_starts, members, side="right") - 1
    samples: np.ndarray = begins[spans] + (members - span_starts[spans])
    return samples


Shuffled: TypeAlias = Numbers | Parts  # both take an array of places and give the samples there


def shuffled(begins: Numbers, ends: Numbers, words: Words) -> Shuffled:
    """The samples of the spans [begin, end) in the order of their words, which are given span after span."""
    if len(words) > PART:
        return Parts(begins, ends, words)
    samples = np.concatenate([np.arange(*span) for span in zip(begins.tolist(), ends.tolist(), strict=True)])
    return np.take(samples, ascending(words))


def ascending(words: Words) -> Numbers:
    """The stable order of random words, as ``argsort`` finds it, in an eighth of its time.

    Numbers sort faster than their indices, so each word's lowest bits give way to its index. The few words that
    agree in all other bits are put in order afterwards.
    """
    bits = (len(words) - 1).bit_length()
    index = np.uint64((1 << bits) - 1)
    packed = words & ~index
    packed |= np.arange(len(words), dtype=np.uint64)
    packed.sort()
    order = (packed & index).view(np.int64)
    packed >>= np.uint64(bits)
    equal = np.flatnonzero(packed[1:] == packed[:-1])
    if len(equal):
        tied = np.union1d(equal, equal + 1)
        order[tied] = order[tied][np.argsort(words[order[tied]], kind="stable")]
    return order
