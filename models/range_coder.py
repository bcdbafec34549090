"""A range coder in whole numbers: symbols of known laws into bytes and back (Martin 1979, "Range encoding").

A format is described once, for both directions, by calls of `Coder.choose`: a writer writes the symbol that it is
told and says it back, a reader ignores it and says what was written.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence

STATE = 56  # bits of the interval's place
KEPT = STATE - 8  # the interval's width has more bits than so many: totals up to 2^32 cost no accuracy that counts
MOST = 1 << 32


class Exhausted(Exception):
    """A reader has come to the end of bytes that were cut short."""


class Coder(ABC):
    """An interval of [0, 1), which each symbol narrows to the symbol's share of it."""

    def __init__(self) -> None:
        self.width = 1 << STATE

    @abstractmethod
    def choose(self, cumulative: Sequence[int], symbol: int = 0) -> int:
        """The symbol, of which s has the probability (cumulative[s + 1] - cumulative[s]) / total.

        cumulative: frequencies summed from 0 on, up to a total of at most 2^32; `range(n + 1)` is the uniform law
        of n symbols. symbol: what a writer writes; it must not have the frequency 0.
        """

    @property
    @abstractmethod
    def bits(self) -> float:
        """The information in all symbols so far, as coded: the bytes' length with its fraction."""

    def unit(self, cumulative: Sequence[int]) -> int:
        """The width of one of the total's parts; what is left over falls to the last."""
        total = cumulative[-1]
        assert 0 < total <= MOST, total
        return self.width // total

    def narrowed(self, cumulative: Sequence[int], symbol: int) -> int:
        """Narrows the interval to the symbol's part; where that begins."""
        unit = self.unit(cumulative)
        low, high = cumulative[symbol], cumulative[symbol + 1]
        assert low < high, f"symbol {symbol} has the frequency 0"
        self.width = (self.width if high == cumulative[-1] else high * unit) - low * unit
        return low * unit


class RangeWriter(Coder):
    """Writes symbols; `finish` gives the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.written = 0, bytearray()

    @property
    def bits(self) -> float:
        return 8 * len(self.written) + STATE - math.log2(self.width)

    def choose(self, cumulative: Sequence[int], symbol: int = 0) -> int:
        self.place += self.narrowed(cumulative, symbol)
        if self.place >> STATE:
            self.carry()
        while self.width >> KEPT == 0:
            self.written.append(self.place >> KEPT)
            self.place, self.width = (self.place & (1 << KEPT) - 1) << 8, self.width << 8
        return symbol

    def carry(self) -> None:
        """Adds the place's overflow to the bytes written before it."""
        self.place -= 1 << STATE
        last = len(self.written) - 1
        while self.written[last] == 0xFF:
            self.written[last] = 0
            last -= 1
        self.written[last] += 1

    def finish(self) -> bytes:
        """The bytes: the shortest that lie in the interval, when a reader takes those that follow for zeros."""
        for free in range(STATE, -1, -8):
            rounded = -(-self.place >> free) << free
            if rounded < self.place + self.width:
                break
        self.place = rounded
        if self.place >> STATE:
            self.carry()
        tail = self.place.to_bytes(STATE // 8, "big")
        return (bytes(self.written) + tail).rstrip(b"\0")


class RangeReader(Coder):
    """Reads symbols from the bytes of a writer.

    whole: they are all there, and zeros follow. If not, `choose` raises Exhausted as soon as a symbol depends on
    bytes that are missing; every symbol before it is as it was written.
    """

    def __init__(self, data: bytes, whole: bool = True) -> None:
        super().__init__()
        self.data, self.whole, self.read, self.offset = data, whole, 0, 0
        for _ in range(STATE // 8):
            self.next_byte()

    @property
    def bits(self) -> float:
        return 8 * self.read - math.log2(self.width)

    def next_byte(self) -> None:
        """Takes one byte more; beyond the end, where that is all there is, a zero."""
        missing = self.read >= len(self.data)
        self.offset = self.offset << 8 | (0 if missing else self.data[self.read])
        self.read += 1

    def choose(self, cumulative: Sequence[int], symbol: int = 0) -> int:
        if not self.whole and self.read > len(self.data):
            raise Exhausted
        part = min(self.offset // self.unit(cumulative), cumulative[-1] - 1)
        symbol = bisect_right(cumulative, part) - 1
        self.offset -= self.narrowed(cumulative, symbol)
        while self.width >> KEPT == 0:
            self.width <<= 8
            self.next_byte()
        return symbol
