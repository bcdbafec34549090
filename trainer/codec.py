"""Progressive coding: images as messages, x_T first and pixels last (Ho et al. 2020, Algorithms 3 and 4).

Sender and receiver go down the chain together. Each step sends x_s ~ q(x_s | x_t, x_0) in about the bits of its
divergence from p(x_s | x_t), and the pixels are at last coded under p(x_0 | x_1), without loss. After any step the
receiver can show x̂_0(x_t). p has the posterior's own variance here, whatever the run's sampler draws with.

Both must compute the same numbers to the last bit, so they ask the network with the same batches; a run's weights
on the same kind of device with the same version of torch and number of threads do. The header's checksum tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from models.block_code import BlockCode, VectorCoder, expected_bits
from models.bound import BIT
from models.diffusion import Diffusion
from models.distributions import DiscretizedGaussian, Gaussian
from models.likelihood import fewer_times
from models.noise import Noise
from models.pixels import to_bytes, to_unit
from models.processes import Images
from models.range_coder import Coder, Exhausted
from trainer.generator import GRANULE

VALUES = torch.arange(256, dtype=torch.float64) / 127.5 - 1
SHARES = 1 << 24  # the resolution of a pixel's law: no value has less than one of these


@dataclass(frozen=True)
class Step:
    """One step from x_t to x_s as it was sent, in bits of all images together.

    divergence: that of q(x_s | x_t, x_0) from p(x_s | x_t); of the pixels, at s = 0, -log2 p(x_0 | x_1).
    """

    t: int
    s: int
    divergence: float
    length: float
    blocks: int = 0

    @property
    def bound(self) -> float:
        """The most bits that it is expected to take, but for what `expected_bits` leaves out."""
        return expected_bits(self.divergence, self.blocks) if self.blocks else self.divergence


@dataclass
class Transmission:
    """What a sender or a receiver has after some steps: x_t, and the steps before. A receiver knows no divergence.

    numbers: how many blocks there were, how many in parts, and how many normal numbers were sent as they are.
    """

    t: int
    x_t: Float64[Tensor, "N C H W"]
    steps: list[Step] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Codec:
    """A diffusion as sender and receiver.

    steps, power: the times at which the chain is seen, as of `fewer_times`. batch: how many images go through the
    network at once. clip: hold x̂_0 within [-1, 1]. seed: of the randomness that both share.
    """

    diffusion: Diffusion
    device: torch.device
    steps: int
    power: float
    batch: int
    clip: bool
    seed: int

    def times(self) -> list[int]:
        """The times of the chain, from T to 0."""
        return fewer_times(self.diffusion.process.steps, self.steps, self.power)

    def begin(self, count: int, shape: tuple[int, int, int]) -> Transmission:
        """Before the first step: x_T of shared noise, whose law is the prior's instead of q(x_T | x_0)."""
        process = self.diffusion.process
        drawn = process.prior(Noise(self.seed, torch.arange(count)), shape)
        return Transmission(process.steps, drawn.double())

    def transmit(
        self,
        coder: Coder,
        on: Transmission,
        sent: int,
        images: UInt8[Tensor, "N C H W"] | None = None,
        code: BlockCode | None = None,
        progress: Callable[[Step], object] = lambda step: None,
    ) -> Transmission:
        """Moves `on` down the first `sent` steps of the chain, as far as the coder's bytes reach.

        images: what a writer sends; None at a reader. code: a writer's choices.
        """
        vectors = VectorCoder(coder, self.seed, on.x_t.numel(), code or BlockCode())
        x_0 = None if images is None else to_unit(images).double()
        for t, s in list(pairwise(self.times()))[:sent]:
            before, blocks = coder.bits, vectors.tally.blocks
            try:
                if s:
                    x_s, divergence = self.send(vectors, on.x_t, t, s, x_0)
                else:
                    x_s, divergence = self.send_pixels(coder, on.x_t, images)
            except Exhausted:
                break
            step = Step(t, s, divergence / BIT, coder.bits - before, vectors.tally.blocks - blocks)
            on.t, on.x_t = s, x_s
            on.steps.append(step)
            progress(step)
        tally = vectors.tally
        on.numbers = {"blocks": tally.blocks, "blocks_in_parts": tally.in_parts, "plain_numbers": tally.plain}
        return on

    def send(
        self, vectors: VectorCoder, x_t: Images, t: int, s: int, x_0: Images | None
    ) -> tuple[Float64[Tensor, "N C H W"], float]:
        """x_s ~ q(x_s | x_t, x_0), and its divergence in nats; s > 0."""
        process = self.diffusion.process
        law = process.posterior(x_t, self.x_0(x_t, t), t, s)
        mean = None
        if x_0 is not None:
            mean = ((process.posterior(x_t, x_0, t, s).mean - law.mean) / law.std).flatten()
        z = vectors.vector(t, mean)
        divergence = math.nan if mean is None else float(mean.square().sum()) / 2
        return law.sample(z.reshape(x_t.shape)), divergence

    def send_pixels(
        self, coder: Coder, x_1: Images, images: UInt8[Tensor, "N C H W"] | None
    ) -> tuple[Float64[Tensor, "N C H W"], float]:
        """The pixels under p(x_0 | x_1) without loss, and -ln p of them."""
        law = self.law_of_pixels(x_1)
        values = torch.zeros(x_1.shape, dtype=torch.uint8) if images is None else images
        read, nats = torch.empty_like(values), 0.0
        for number, written in enumerate(values):
            mean, std = law.mean[number].flatten()[:, None], law.std[number].flatten()[:, None]
            log_prob = DiscretizedGaussian(mean, std).log_prob(VALUES)
            cumulative = (1 + (log_prob.exp() * (SHARES - 256)).long()).cumsum(1)
            chosen = [
                coder.choose([0, *row], value)
                for row, value in zip(cumulative.tolist(), written.flatten().tolist(), strict=True)
            ]
            read[number] = torch.tensor(chosen, dtype=torch.uint8).reshape(written.shape)
            nats -= float(log_prob.gather(1, torch.tensor(chosen)[:, None]).sum())
        return to_unit(read).double(), nats

    def shown(self, on: Transmission) -> UInt8[Tensor, "N C H W"]:
        """The images as far as they are known: x̂_0(x_t), and at t = 0 the pixels themselves."""
        return to_bytes(self.x_0(on.x_t, on.t) if on.t else on.x_t)

    def x_0(self, x_t: Images, t: int) -> Float64[Tensor, "N C H W"]:
        """x̂_0(x_t)."""
        return self.batched(lambda x: self.diffusion.x_0(x, t, None, self.clip), x_t)

    def law_of_pixels(self, x_1: Images) -> Gaussian:
        """p(x_0 | x_1) before it is made discrete: the run's own."""

        def mean_and_std(x: Images) -> Tensor:
            law = self.diffusion.reverse(x, 1, 0, None, self.clip)
            return torch.stack((law.mean, law.std.expand_as(law.mean)), 1)

        return Gaussian(*self.batched(mean_and_std, x_1).unbind(1))

    def batched(self, function: Callable[[Tensor], Tensor], x: Images) -> Float64[Tensor, "N ..."]:
        """A function of the network, of `batch` images at a time; each batch is filled up as a generator's is."""
        parts = []
        for rows in x.split(self.batch):
            filled = torch.nn.functional.pad(rows, (0, 0) * (x.ndim - 1) + (0, -len(rows) % GRANULE))
            parts.append(function(filled.to(self.device))[: len(rows)].cpu())
        return torch.cat(parts)
