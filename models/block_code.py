"""A vector of normal numbers in blocks, each sent by relative entropy coding: one step of progressive coding.

The format of a vector, which a writer and a reader go through alike: how many blocks, the law of their numbers,
and for each block whether it goes in parts, then its number, or that of each part.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

from models.bound import BIT
from models.noise import Noise, Purpose
from models.range_coder import Coder
from models.relative_entropy import BLOCK_BITS, INDEX_BITS, Common, Shifted, limits, search

OCTAVE = 1 << 16  # the resolution of the law of octaves
OCTAVES = tuple(0.05 * 1.5**level for level in range(16))  # the mean octaves that a vector may choose from
PARTS = 4  # of a block that exceeds its limit
FURTHER = 4.0  # bits: how much longer a part is searched for, as plain numbers take 32 bits each
OF_A_PART = 6.0  # the mean octave of theirs: they are rare, so that no vector states it


@dataclass
class BlockCode:
    """How a writer makes blocks; a reader need not know.

    block_bits: the divergence that a block is to have, about. search_bits: log2 of how many candidates are looked
    at for a block at the most, about; what they do not hold is sent in parts.
    """

    block_bits: float = 6.0
    search_bits: float = 14.0

    def __post_init__(self) -> None:
        for name, low, high in (("block_bits", 0, 16), ("search_bits", 0, 24)):
            if not low < getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in ({low}, {high}], got {getattr(self, name)}")


@dataclass
class Tally:
    """What a writer or a reader has met: blocks, those in parts, and numbers that were sent as they are."""

    blocks: int = 0
    in_parts: int = 0
    plain: int = 0
    splits: int = 0  # of the vector before, and
    level: int = 0  # its level: the next one's are most often the same


@dataclass
class VectorCoder:
    """Codes one vector after the other, each a sample of N(mean, I) against N(0, I).

    The vectors are turned by a fixed rotation, which is nothing to N(0, I): it spreads a divergence that few of
    the elements have over all the blocks.
    """

    coder: Coder
    seed: int
    size: int
    code: BlockCode = field(default_factory=BlockCode)
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.padded = 1 << max(0, self.size - 1).bit_length()
        drawn = Noise(self.seed, torch.zeros(1, dtype=torch.int64)).uniform(Purpose.CANDIDATE, (self.padded,))[0]
        self.signs = torch.where(drawn > 0.5, 1.0, -1.0).double()

    def vector(self, step: int, mean: Float64[Tensor, " size"] | None) -> Float64[Tensor, " size"]:
        """The sample. mean: what a writer shifts it by; None at a reader. step: a number of its own, from 1."""
        blocks = self.blocks_of(mean)
        splits = self.sticky(range(self.padded.bit_length()), self.tally.splits, self.splits(blocks))
        self.tally.splits = splits
        common = Common(self.seed, step, torch.arange(1 << splits))
        law = None if blocks is None else Shifted.free(blocks.reshape(1 << splits, -1))
        return self.turned_back(self.code_blocks(common, law, self.padded >> splits).flatten())[: self.size]

    def blocks_of(self, mean: Float64[Tensor, " size"] | None) -> Float64[Tensor, " padded"] | None:
        """The mean, turned."""
        if mean is None:
            return None
        padded = torch.nn.functional.pad(mean, (0, self.padded - self.size))
        return hadamard(padded * self.signs)

    def turned_back(self, turned: Float64[Tensor, " padded"]) -> Float64[Tensor, " padded"]:
        """The inverse of the rotation."""
        return hadamard(turned) * self.signs

    def splits(self, mean: Float64[Tensor, " padded"] | None) -> int:
        """log2 of the number of blocks that each have about `block_bits`."""
        if mean is None:
            return 0
        wanted = float(mean.square().sum()) / 2 / BIT / self.code.block_bits
        return min(max(0, round(math.log2(max(wanted, 1)))), self.padded.bit_length() - 1, BLOCK_BITS)

    def sticky(self, choices: range, before: int, choice: int) -> int:
        """A choice that is the one before it half of the time."""
        weights = [len(choices) if each == before else 1 for each in choices]
        return self.coder.choose(summed(weights), choice)

    def code_blocks(self, common: Common, law: Shifted | None, size: int) -> Float64[Tensor, "K size"]:
        """All blocks of a vector; `law` is None at a reader."""
        count, tally = len(common.block), self.tally
        exceeds, numbers, limit = [False] * count, [0] * count, None
        if law is not None:
            limit = limits(law, self.code.search_bits * BIT)
            above = law.log_ratio(law.draw(common)[0][:, None])[:, 0] > limit
            found = torch.zeros_like(common.block)
            found[~above] = search(law[~above], limit[~above], common[~above])
            exceeds, numbers = above.tolist(), found.tolist()
        level = best_level([n for n, up in zip(numbers, exceeds, strict=True) if not up], tally.level)
        tally.level = self.sticky(range(len(OCTAVES)), tally.level, level)
        z = torch.zeros(count, size, dtype=torch.float64)
        for block in range(count):
            flags = [0, 256 + tally.blocks - tally.in_parts, 257 + tally.blocks]
            exceeds[block] = bool(self.coder.choose(flags, exceeds[block]))
            tally.blocks += 1
            if exceeds[block]:
                tally.in_parts += 1
                row = slice(block, block + 1)
                given = None if law is None or limit is None else beyond(law[row], limit[row])
                z[row] = self.code_parts(common[row], given, size)
            else:
                numbers[block] = code_number(self.coder, OCTAVES[tally.level], numbers[block])
        kept = ~torch.tensor(exceeds)
        z[kept] = common[kept].candidates(torch.tensor(numbers)[kept, None], size)[:, 0].double()
        return z

    def code_parts(self, common: Common, law: Shifted | None, size: int) -> Float64[Tensor, "1 size"]:
        """One block in parts, each given those before it; a part that exceeds its limit goes as it is."""
        z = torch.zeros(1, size, dtype=torch.float64)
        edges = sorted({size * part // PARTS for part in range(PARTS + 1)})
        for part, (start, stop) in enumerate(pairwise(edges), start=1):
            rows, which = slice(start, stop), Common(common.seed, common.step, common.block, part)
            own, number, plain = torch.zeros(1, stop - start), 0, False
            if law is not None:
                given = law.part(rows, z)
                limit = z.new_full((1,), (self.code.search_bits + FURTHER) * BIT)
                projection, own = given.draw(which)
                plain = bool(given.log_ratio(projection[:, None])[0, 0] > limit[0])
                number = 0 if plain else int(search(given, limit, which)[0])
            if self.coder.choose([0, 63, 64], plain):
                z[0, rows] = code_plain(self.coder, own[0])
                self.tally.plain += stop - start
            else:
                number = code_number(self.coder, OF_A_PART, number)
                z[:, rows] = which.candidates(torch.tensor([[number]]), stop - start)[:, 0].double()
        return z


def beyond(law: Shifted, limit: Float64[Tensor, " K"]) -> Shifted:
    """The law given that ln r exceeds its limit."""
    return Shifted(law.mean, limit + law.length / 2, law.rest)


def code_number(coder: Coder, mean_octave: float, number: int) -> int:
    """A number from 0 on: the octave o of number + 1 by a geometric law, then its place in the octave, uniform.

    Where `mean_octave` is the mean m of o, the mean length is m + log2(m + 1) + m log2(1 + 1 / m) ≤
    m + log2(m + 1) + log2(e) bits.
    """
    further = share_of_further(mean_octave)
    octave, wanted = 0, (number + 1).bit_length() - 1
    while coder.choose([0, OCTAVE - further, OCTAVE], octave < wanted):
        octave += 1
    return (1 << octave) - 1 + coder.choose(range((1 << octave) + 1), number + 1 - (1 << octave))


def share_of_further(mean_octave: float) -> int:
    """Of OCTAVE, how often an octave is not the last, under the geometric law of this mean."""
    return round(OCTAVE * mean_octave / (1 + mean_octave))


def best_level(numbers: list[int], before: int) -> int:
    """The level of the octaves' law under which these numbers, and a change from `before`, are shortest."""
    total = sum((number + 1).bit_length() - 1 for number in numbers)

    def length(level: int) -> float:
        further = share_of_further(OCTAVES[level]) / OCTAVE
        change = math.log2(len(OCTAVES)) if level != before else 0.0
        return change - total * math.log2(further) - len(numbers) * math.log2(1 - further)

    return min(range(len(OCTAVES)), key=length)


def code_plain(coder: Coder, values: Tensor) -> Tensor:
    """Numbers in float32, as they are: 32 bits each."""
    words = struct.unpack(f"<{len(values)}I", struct.pack(f"<{len(values)}f", *values.tolist()))
    read = [coder.choose(range((1 << 32) + 1), word) for word in words]
    return torch.tensor(struct.unpack(f"<{len(read)}f", struct.pack(f"<{len(read)}I", *read))).double()


def expected_bits(divergence: float, blocks: int) -> float:
    """The most that `blocks` blocks, whose divergences sum to so many bits, are expected to take, in bits.

    With m = divergence / blocks + log2(e) / e + 1 that is blocks · (m + log2(m + 1) + log2(e)): relative_entropy's
    (1), the length of `code_number`, and the concavity of the logarithm. What is rare comes on top: the blocks in
    parts, and log2 1 / P(r ≤ R) of the others, at three deviations .002 bits each; so do up to .03 bits a block,
    as `OCTAVES` has not every mean, and what a vector says of its blocks and their law.
    """
    mean = divergence / blocks + INDEX_BITS
    return blocks * (mean + math.log2(mean + 1) + math.log2(math.e))


def hadamard(x: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """The orthonormal Walsh-Hadamard transform, which is its own inverse; n is a power of two."""
    half = 1
    while half < len(x):
        pairs = x.reshape(-1, 2, half)
        x = torch.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), dim=1).flatten()
        half *= 2
    return x / math.sqrt(len(x))


def summed(weights: list[int]) -> list[int]:
    """Cumulative frequencies of these."""
    total, sums = 0, [0]
    for weight in weights:
        sums.append(total := total + weight)
    return sums
