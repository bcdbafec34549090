"""Vectors in blocks: what a reader gets is what the writer sent, with its law, in the bits that were stated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import hadamard as scipys_hadamard

from models.block_code import BlockCode, VectorCoder, code_number, expected_bits, hadamard
from models.bound import BIT
from models.range_coder import RangeReader, RangeWriter


def shift(bits: float, size: int, seed: int = 0) -> torch.Tensor:
    """A mean of this divergence from 0, with most of it in few of its elements."""
    mean = torch.from_numpy(np.random.default_rng(seed).standard_t(2, size))
    return mean * math.sqrt(2 * bits * BIT) / mean.norm()


def sent(
    means: list[torch.Tensor], code: BlockCode, seed: int = 0
) -> tuple[list[torch.Tensor], VectorCoder, bytes]:
    writer = RangeWriter()
    vectors = VectorCoder(writer, seed, len(means[0]), code)
    return [vectors.vector(step, mean) for step, mean in enumerate(means, 1)], vectors, writer.finish()


def received(data: bytes, count: int, size: int, seed: int = 0) -> list[torch.Tensor]:
    vectors = VectorCoder(RangeReader(data), seed, size)
    return [vectors.vector(step, None) for step in range(1, count + 1)]


@pytest.mark.parametrize("size", [1, 3, 40])
@pytest.mark.parametrize(("block_bits", "search_bits"), [(4.0, 8.0), (3.0, 1.0)])
def test_a_reader_gets_to_the_last_bit_what_the_writer_sent(size, block_bits, search_bits):
    """With a search of two candidates nearly every block goes in parts, and many as plain numbers."""
    bits = (0.0, 1e-9, 0.5, 12.0, 40.0, 3.0)
    vectors, writer, data = sent(
        [shift(b, size, i) for i, b in enumerate(bits)], BlockCode(block_bits, search_bits)
    )
    assert all(map(torch.equal, vectors, received(data, len(bits), size)))
    if search_bits == 1:
        assert min(writer.tally.in_parts, writer.tally.plain) > 0


@pytest.mark.parametrize("code", [BlockCode(3.0, 9.0), BlockCode(4.0, 3.0)], ids=["whole", "in parts"])
def test_what_is_sent_has_the_shifted_law(code):
    """Standard normal about its mean: along it, where all of the choice is, across it, and in all elements."""
    mean = shift(24.0, 24)
    count = 40
    vectors, writer, _ = sent([mean] * count, code, seed=1)
    off = torch.stack(vectors) - mean
    across = mean.roll(1) - (mean.roll(1) @ mean / mean.square().sum()) * mean
    for direction in (mean, across):
        assert stats.kstest((off @ direction / direction.norm()).numpy(), "norm").pvalue > 0.001
    assert stats.kstest(off.flatten().numpy(), "norm").pvalue > 0.001
    assert stats.chi2.sf(float(off.square().sum()), off.numel()) > 0.001
    assert stats.chi2.cdf(float(off.square().sum()), off.numel()) > 0.001
    parts = writer.tally.in_parts / writer.tally.blocks
    assert parts < 0.1 if code.search_bits == 9 else parts > 0.3


@pytest.mark.parametrize("bits", [0.3, 5.0, 24.0])
def test_the_length_is_between_the_divergence_and_the_bound(bits):
    """Over many vectors; blocks in parts, which the bound leaves out, are below one in twenty here."""
    count = 40
    _, writer, data = sent([shift(bits, 16, i) for i in range(count)], BlockCode(4.0, 12.0))
    assert writer.tally.in_parts < writer.tally.blocks / 20
    assert count * bits < 8 * len(data) < count * expected_bits(bits, writer.tally.blocks // count)


def test_a_number_takes_the_bits_of_its_law():
    """Geometric octaves of mean m, uniform within: 2^-o m^o / (1 + m)^(o + 1)."""
    for number in (0, 1, 2, 3, 6, 100, 70_000, (1 << 31) + 5):
        for mean in (0.05, 2.0, 9.0):
            writer = RangeWriter()
            assert code_number(writer, mean, number) == number
            octave = int(math.log2(number + 1))
            expected = octave + (octave + 1) * math.log2(1 + mean) - octave * math.log2(mean)
            assert writer.bits == pytest.approx(expected, rel=2e-3, abs=1e-3)
            assert code_number(RangeReader(writer.finish()), mean, 0) == number


def test_the_stated_bound_is_the_sum_of_its_parts():
    """One block of 8 bits: m = 8 + .5307 + 1, and m + log2(m + 1) + log2 e."""
    assert expected_bits(8.0, 1) == pytest.approx(9.5307 + math.log2(10.5307) + 1.4427, abs=1e-3)
    assert expected_bits(80.0, 10) == pytest.approx(10 * expected_bits(8.0, 1))


def test_the_rotation_is_hadamards():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=16))
    assert np.allclose(hadamard(x), scipys_hadamard(16) @ x.numpy() / 4)
    assert torch.allclose(hadamard(hadamard(x)), x)


@pytest.mark.parametrize(("field", "value"), [("block_bits", 0.0), ("block_bits", 17.0), ("search_bits", 25.0)])
def test_a_choice_that_cannot_be_is_named(field, value):
    with pytest.raises(ValueError, match=rf"{field} must lie in \(0, .*got {value}"):
        BlockCode(**{field: value})
