"""Relative entropy coding of blocks of normal numbers: a sample of q, sent in about KL(q ‖ p) bits.

Sender and receiver share candidates z_1, z_2, … ~ p and the arrivals T_1 < T_2 < … of a Poisson process. The
sender sends the number i of the least T_i / r(z_i), r = q / p; z_i then has the law q exactly, and

    E log2 i ≤ KL(q ‖ p) + log2(e) / e + 1,                                                              (1)

the Poisson functional representation (Li & El Gamal 2018, "Strong functional representation lemma and applications
to coding theorems", Theorem 1 and appendix A). Here p = N(0, I) and q = N(m, I), whose r has no maximum, so that
no search could be sure of its minimum. The sender therefore first draws, by itself, whether r(z) is to exceed a
limit R. If not, the law left is q where r ≤ R, and the search ends as soon as T_n / R is above the least score; R
cancels from the comparison, and (1) holds with log2 1 / P_q(r ≤ R) beside it. If so, the block is sent in parts,
each given those before it (see `Shifted.floor`), and of a part that again exceeds its limit, the numbers
themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from models.noise import Noise, Purpose

INDEX_BITS = 1 / (math.e * math.log(2)) + 1  # what log2 i has beyond the divergence, at most: (1)
NUMBER_BITS, PART_BITS, BLOCK_BITS = 32, 4, 20  # of a sample's index: the candidate, the part, the block
TINY = torch.finfo(torch.float64).tiny
AT_ONCE = 1 << 17  # numbers of one call: small enough to stay in a processor's cache

PerBlock = Float64[Tensor, " K"]


@dataclass(frozen=True)
class Common:
    """The randomness of some blocks, every number of it a function of integers.

    seed: shared. step: of the chain, from 1. block: [K] the blocks' numbers. part: 0 is the whole block.
    """

    seed: int
    step: int
    block: Int64[Tensor, " K"]
    part: int = 0

    def __getitem__(self, rows: Tensor | slice) -> Common:
        return replace(self, block=self.block[rows])

    def noise(self, numbers: Int64[Tensor, "K n"]) -> Noise:
        """That of the candidates of each block that have these numbers, one block after the other."""
        place = self.block[:, None] << NUMBER_BITS + PART_BITS | self.part << NUMBER_BITS | numbers
        return Noise(self.seed, place.flatten())

    def candidates(self, numbers: Int64[Tensor, "K n"], size: int) -> Float[Tensor, "K n size"]:
        """Candidates of `size` normal numbers: what the receiver makes of the numbers that it reads."""
        drawn = self.noise(numbers).normal(Purpose.CANDIDATE, (size,), step=2 * self.step)
        return drawn.reshape(*numbers.shape, size)

    def waits(self, numbers: Int64[Tensor, "K n"]) -> Float64[Tensor, "K n"]:
        """T_i - T_{i-1}, exponential with mean 1. Only a sender needs them."""
        drawn = self.noise(numbers).uniform(Purpose.CANDIDATE, (), step=2 * self.step + 1)
        return -drawn.double().log().reshape(numbers.shape)

    def own(self, count: int) -> Float[Tensor, "K count"]:
        """Normal numbers for the sender's own draws: those of a candidate that no search comes to."""
        last = torch.full((len(self.block), 1), (1 << NUMBER_BITS) - 1, device=self.block.device)
        return self.noise(last).normal(Purpose.CANDIDATE, (count,), step=2 * self.step + 1)


@dataclass(frozen=True)
class Shifted:
    """The law N(mean, I) of each block, given that its projection and that of what follows reach a floor.

    mean: [K, size]. The projection of z is <z, mean>; all that follows the block has together one of N(rest,
    rest). floor: what the two must exceed together; -inf is no condition. rest: the squared length of what
    follows.
    """

    mean: Float64[Tensor, "K size"]
    floor: PerBlock
    rest: PerBlock

    @classmethod
    def free(cls, mean: Float64[Tensor, "K size"]) -> Shifted:
        """Without a condition, and with nothing that follows."""
        return cls(mean, mean.new_full((len(mean),), -math.inf), mean.new_zeros(len(mean)))

    def __getitem__(self, rows: Tensor | slice) -> Shifted:
        return Shifted(self.mean[rows], self.floor[rows], self.rest[rows])

    @property
    def length(self) -> PerBlock:
        """|mean|²: twice the divergence from N(0, I) in nats, where there is no condition."""
        return self.mean.square().sum(1)

    @property
    def tail(self) -> PerBlock:
        """ln of the probability of the condition, without which the law has the whole projection's."""
        together = self.length + self.rest
        log_probability: PerBlock = torch.special.log_ndtr((together - self.floor) / together.sqrt())
        return log_probability

    def log_ratio(self, projection: Float64[Tensor, "K n"]) -> Float64[Tensor, "K n"]:
        """ln q(z) / p(z) for z of this projection; p = N(0, I)."""
        lacking = (self.floor - self.rest)[:, None] - projection
        reached: Tensor = torch.special.log_ndtr(-lacking / self.rest.sqrt()[:, None])
        return projection - self.length[:, None] / 2 + reached - self.tail[:, None]

    def draw(self, common: Common) -> tuple[PerBlock, Float64[Tensor, "K size"]]:
        """A sample that is the sender's own: its projection, and the sample."""
        own = common.own(self.mean.shape[1] + 2).double()
        whole, bridge, across = own[:, 0], own[:, 1], own[:, 2:]
        together = (self.length + self.rest).clamp(min=TINY)
        # By symmetry, the upper tail as a lower one: there the doubles are dense.
        tail = (self.tail + torch.special.log_ndtr(whole)).exp()
        total = together - together.sqrt() * torch.special.ndtri(tail)
        share = self.length / together
        projection = share * total + (share * self.rest).sqrt() * bridge
        excess = (projection - (across * self.mean).sum(1)) / self.length.clamp(min=TINY)
        return projection, across + excess[:, None] * self.mean

    def part(self, rows: slice, before: Float64[Tensor, "1 size"]) -> Shifted:
        """The law of one part of a single block, given what was sent before it: `before` is 0 elsewhere."""
        floor = self.floor - (before * self.mean).sum(1)
        return Shifted(self.mean[:, rows], floor, self.mean[:, rows.stop :].square().sum(1))


@torch.no_grad()
def search(law: Shifted, limit: PerBlock, common: Common) -> Int64[Tensor, " K"]:
    """The number, from 0, of the candidate with the least T_i / r(z_i) among those with ln r(z_i) ≤ limit.

    It looks at about exp(limit) candidates, whatever the law.
    """
    found, active = torch.zeros_like(common.block), torch.arange(len(limit), device=limit.device)
    least, arrived = torch.full_like(limit, math.inf), torch.zeros_like(limit)
    size, first, count = law.mean.shape[1], 0, 16
    while len(active):
        count = max(16, min(2 * count, AT_ONCE // (size * len(active))))
        numbers = torch.arange(first, first + count, device=limit.device).expand(len(active), -1)
        of, which = law[active], common[active]
        candidates = which.candidates(numbers, size).double()
        ratio = of.log_ratio((candidates @ of.mean[:, :, None]).squeeze(2))
        arrivals = arrived[active, None] + which.waits(numbers).cumsum(1)
        score = (arrivals.log() - ratio).masked_fill(ratio > limit[active, None], math.inf)
        low, where = score.min(1)
        better = low < least[active]
        found[active[better]], least[active[better]] = first + where[better], low[better]
        arrived[active] = arrivals[:, -1]
        first += count
        assert first < (1 << NUMBER_BITS) - 1, "a search came to the last of its numbers"
        active = active[arrived[active].log() - limit[active] < least[active]]
    return found


def limits(law: Shifted, most: float, deviations: float = 3.0) -> PerBlock:
    """ln R of each block: what ln r exceeds with probability P(N(0, 1) > deviations), but `most` at the most.

    Under q itself, ln r has the law N(k, 2k) where k is the divergence.
    """
    divergence = law.length / 2
    return (divergence + deviations * (2 * divergence).sqrt()).clamp(max=most)
