"""The range coder: what is written is read, in the bits of its law, and missing bytes are noticed."""

from __future__ import annotations

import math
import random
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.range_coder import MOST, Exhausted, RangeReader, RangeWriter

LAWS = st.lists(st.integers(0, 1 << 20), min_size=1, max_size=20).filter(any)


@st.composite
def messages(draw):
    """Laws, and a symbol of each that is possible under it."""
    laws = draw(st.lists(LAWS, max_size=40))
    symbols = [draw(st.sampled_from([s for s, weight in enumerate(law) if weight])) for law in laws]
    return [[0, *accumulate(law)] for law in laws], symbols


@given(messages())
def test_what_is_written_is_read(message):
    laws, symbols = message
    writer = RangeWriter()
    assert [writer.choose(law, symbol) for law, symbol in zip(laws, symbols, strict=True)] == symbols
    data = writer.finish()
    reader = RangeReader(data)
    assert [reader.choose(law) for law in laws] == symbols
    assert reader.bits == pytest.approx(writer.bits)
    information = sum(math.log2(law[-1] / (law[s + 1] - law[s])) for law, s in zip(laws, symbols, strict=True))
    assert len(data) * 8 <= writer.bits + 16
    assert writer.bits <= information + 1e-2 * (1 + len(laws))


def test_the_length_is_the_entropy_of_the_source():
    """Of 20,280 symbols of a skewed law, to two bytes in 325; the law's entropy is computed here."""
    weights = [1, 2, 4, 1000, 7]
    law, entropy = [0, *accumulate(weights)], 0.0
    for weight in weights:
        entropy -= weight / law[-1] * math.log2(weight / law[-1])
    symbols = sorted(s for s, weight in enumerate(weights) for _ in range(20 * weight))
    random.Random(0).shuffle(symbols)
    writer = RangeWriter()
    for symbol in symbols:
        writer.choose(law, symbol)
    assert len(writer.finish()) * 8 == pytest.approx(len(symbols) * entropy, abs=16)


@pytest.mark.parametrize("law", [[0, MOST - 1, MOST], [0, 1, MOST], range(MOST + 1)], ids=["high", "low", "flat"])
def test_the_largest_totals_and_long_carries(law):
    """Runs of the topmost part fill the bytes with 255, through which a carry has to go."""
    last = len(law) - 2
    symbols = [0, *[last] * 200, 0, *[last] * 30, 0, 0]
    writer = RangeWriter()
    for symbol in symbols:
        writer.choose(law, symbol)
    reader = RangeReader(writer.finish())
    assert [reader.choose(law) for _ in symbols] == symbols


def test_of_bytes_that_are_cut_short_no_symbol_is_guessed():
    law = [0, 3, 10, 11]
    symbols = [random.Random(1).choice((0, 1, 1, 2)) for _ in range(400)]
    writer = RangeWriter()
    for symbol in symbols:
        writer.choose(law, symbol)
    data = writer.finish()
    counts = []
    for length in range(len(data)):
        read = read_until_exhausted(RangeReader(data[:length], whole=False), law)
        assert read == symbols[: len(read)]
        counts.append(len(read))
    assert counts == sorted(counts)
    assert counts[-1] > 300


def read_until_exhausted(reader: RangeReader, law: list[int]) -> list[int]:
    read = []
    try:
        while True:
            read.append(reader.choose(law))
    except Exhausted:
        return read


def test_an_impossible_symbol_is_not_written():
    with pytest.raises(AssertionError, match="symbol 1 has the frequency 0"):
        RangeWriter().choose([0, 2, 2, 3], 1)
