"""A run as figures see it: its model with averaged weights, its data, and the noise of what is drawn from it."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data_pipeline.config import DataConfig
from models.noise import Noise
from models.pixels import to_bytes
from models.samplers import Ancestral, ReverseChain
from trainer.generator import Generator
from trainer.metrics.bound import drawn
from trainer.metrics.evaluation import LabelledImages, Yardstick, has_classes
from trainer.run import Run


@dataclass(frozen=True)
class Subject:
    """diffusion: a Chain, or the Diffusion that a figure's check has asked for. seed: of all noise.

    batch: how many images are handled at once.
    """

    run: Run
    diffusion: Any
    device: torch.device
    seed: int = 0
    batch: int = 256

    @property
    def steps(self) -> int:
        """T."""
        return self.run.process.steps

    @property
    def ancestral(self) -> Ancestral:
        """The chain of all T steps; x̂_0 is held within its range as the run's own sampler does it."""
        own = self.run.sampler
        return Ancestral(clip=own.clip) if isinstance(own, ReverseChain) else Ancestral()

    def times(self, shares: Sequence[float], least: int = 0) -> list[int]:
        """Shares of T as times from `least` to T, rising, none of them twice."""
        return sorted({max(least, round(share * self.steps)) for share in shares})

    def noise(self, count: int, start: int = 0) -> Noise:
        """Of images number `start` to `start + count - 1`."""
        return Noise(self.seed, torch.arange(start, start + count, device=self.device))

    def parts(self, count: int) -> list[Noise]:
        """The noise of the first `count` images, a batch at a time."""
        whole = self.noise(count)
        return [whole[first : first + self.batch] for first in range(0, count, self.batch)]

    def real(self, count: int) -> Float[Tensor, "count C H W"]:
        """Data that the run was trained on, in the model's range: the first that it saw."""
        return drawn(self.run, 0, count)[0].to(self.device)

    def distinct(self, most: int) -> int:
        """How many of the first `most` data there are without repeats: an epoch's, if there are epochs."""
        stream = self.run.data.build(self.run.run.seed)
        return min(most, len(stream)) if isinstance(stream, Sized) else most

    def samples(self, count: int) -> Float[Tensor, "count C H W"]:
        """The first images that launch.sample draws, by the run's own sampler: of each class in turn, if any."""
        run = self.run
        generator = Generator(self.diffusion, run.sampler, run.shape, self.seed, self.device, run.every_class)
        parts = [generator.samples(first, min(self.batch, count - first)) for first in range(0, count, self.batch)]
        return torch.cat(parts)

    @cached_property
    def span(self) -> tuple[float, float]:
        """What is shown as black and as white: the range of pixels, or of a hundred images of drawn data."""
        if self.run.data.pixels:
            return self.run.pixels.low, self.run.pixels.high
        x = self.real(100)
        return float(x.min()), float(x.max())

    def bytes(self, x: Float[Tensor, "N C H W"]) -> UInt8[Tensor, "N C H W"]:
        """Pictures as bytes, on the CPU."""
        return to_bytes(x.cpu(), self.run.pixels)

    @cached_property
    def yardstick(self) -> Yardstick | None:
        """The features of a classifier of the run's data, where that has classes."""
        data = self.run.data
        if not (isinstance(data, DataConfig) and has_classes(data)):
            return None
        return Yardstick.of(LabelledImages.read(data, data.shards))
