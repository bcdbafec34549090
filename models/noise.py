"""Noise as a pure function of (seed, purpose, sample, step): no generator, no state, nothing to save.

The same image draws the same noise on any number of ranks, at any batch size and after any restart, because
its noise depends on nothing but integers. The words are those of Philox 4x32-10 (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"), written in int64 tensor operations so that every device gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float, Int64
from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
# The counter's four words are: block, step, the sample's low 32 bits, purpose (8 bits) and its high 24 bits.
SAMPLE_BITS = 56


class Purpose(IntEnum):
    """What a number is drawn for. Each has its own streams, so adding one never moves another's numbers."""

    TIME = 1
    EPSILON = 2
    PRIOR = 3
    REVERSE = 4
    INITIALIZATION = 5
    FORWARD = 7
    TRACE = 9
    LANGEVIN = 10
    KNOWN = 11
    PROJECTION = 12
    CANDIDATE = 13
    LABEL_DROP = 14
    CORRECTOR = 15
    DEQUANTIZE = 16
    DROPOUT = 17


def philox(counter: Sequence[Int64[Tensor, "..."]], key: tuple[int, int]) -> list[Int64[Tensor, "..."]]:
    """Philox 4x32-10: four 32-bit words for each counter of four 32-bit words, all kept in int64 tensors.

    A product of two 32-bit words overflows int64, but wraps modulo 2^64 as the unsigned product does, so both
    of its halves are right once the shift's sign extension is masked off.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> 32 & WORD) ^ c1 ^ k0,
            product1 & WORD,
            (product0 >> 32 & WORD) ^ c3 ^ k1,
            product0 & WORD,
        )
        k0, k1 = k0 + WEYL[0] & WORD, k1 + WEYL[1] & WORD
    return [c0, c1, c2, c3]


@dataclass(frozen=True)
class Noise:
    """The noise of a batch: `index` names its samples, and sample i draws the same numbers in any batch.

    seed: any integer from 0 to 2^64 - 1.
    index: [B] int64, each from 0 to 2^56 - 1. In training, a sample's position in the endless stream of data;
        in sampling, the number of the image.
    """

    seed: int
    index: Int64[Tensor, " B"]

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed must lie in 0 .. 2^64 - 1, got {self.seed}")

    def __getitem__(self, rows: slice) -> Noise:
        """The noise of some of the batch's samples: a micro-batch draws what the whole batch would have drawn."""
        return Noise(self.seed, self.index[rows])

    def words(self, purpose: Purpose, count: int, step: int = 0) -> Int64[Tensor, "B count"]:
        """`count` words, uniform on 0 .. 2^32 - 1, for each sample."""
        blocks = torch.arange(-(-count // 4), device=self.index.device)
        low = self.index[:, None] & WORD
        high = self.index[:, None] >> 32 | int(purpose) << SAMPLE_BITS - 32
        counter = [blocks + 0 * low, torch.full_like(blocks, step), low, high]
        key = (self.seed & WORD, self.seed >> 32)
        return torch.stack(philox(counter, key), dim=-1).flatten(1)[:, :count]

    def integers(self, purpose: Purpose, high: int, step: int = 0) -> Int64[Tensor, " B"]:
        """One integer from 0 .. high - 1 a sample, high ≤ 2^31; the bias of the scaling is below high / 2^32."""
        assert 0 < high <= 1 << 31, high
        return self.words(purpose, 1, step)[:, 0] * high >> 32

    def uniform(self, purpose: Purpose, shape: Sequence[int], step: int = 0) -> Float[Tensor, "B ..."]:
        """Uniform float32 numbers in (0, 1], of `shape` for each sample."""
        words = self.words(purpose, math.prod(shape), step)
        return unit_interval(words).reshape(-1, *shape)

    def normal(self, purpose: Purpose, shape: Sequence[int], step: int = 0) -> Float[Tensor, "B ..."]:
        """Standard normal float32 numbers, of `shape` for each sample, by Box and Muller's transform."""
        count = math.prod(shape)
        words = self.words(purpose, count + count % 2, step)
        u, v = unit_interval(words[:, 0::2]), unit_interval(words[:, 1::2])
        radius, angle = torch.sqrt(-2 * torch.log(u)), 2 * math.pi * v
        pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
        return pairs.flatten(1)[:, :count].reshape(-1, *shape)


def unit_interval(words: Int64[Tensor, "..."]) -> Float[Tensor, "..."]:
    """(word + 1/2) / 2^32 in float32: never 0, so its logarithm is finite and |normal| is at most 6.8."""
    return (words.to(torch.float32) + 0.5) * 2.0**-32
