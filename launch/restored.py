"""A run, restored to be drawn from: what the doors that look at trained weights have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from configs.doors import GenerateConfig, OwnSampler, RestoreConfig
from configs.runs import load_run
from models.diffusion import Chain, Diffusion
from models.pixels import to_bytes
from trainer.averaged import averaged_diffusion
from trainer.checkpoint import Checkpoints
from trainer.distributed import default_device
from trainer.generator import Generator
from trainer.run import Run


@dataclass(frozen=True)
class Averaged:
    """A run at one of its checkpoints: the diffusion over one of its averages."""

    run: Run
    checkpoint: Path
    half_life: float
    diffusion: Chain
    device: torch.device

    @classmethod
    def of(cls, chosen: RestoreConfig) -> Averaged:
        """Raises ValueError where the run, the checkpoint or the average is not there."""
        run = load_run(Path(chosen.run.directory))
        checkpoint = Checkpoints(run.checkpoints()).at(chosen.checkpoint)
        half_life = chosen.half_life or run.ema.half_lives[0]
        device = default_device()
        return cls(run, checkpoint, half_life, averaged_diffusion(run, checkpoint, half_life, device), device)

    def check_pixels(self, what: str) -> None:
        """Raises ValueError for a run that has no p(x_0 | x_1) of pixels, which `what` is of."""
        if not (self.run.data.pixels and isinstance(self.diffusion, Diffusion)):
            raise ValueError(
                f"{what} is of images under a chain that goes through x̂_0, got data="
                f"{type(self.run.data).__name__} and parameterization={type(self.run.parameterization).__name__}"
            )


@dataclass(frozen=True)
class Restored:
    """A run at one of its checkpoints, and the generator of its images."""

    run: Run
    checkpoint: Path
    generator: Generator
    half_life: float

    @classmethod
    def of(cls, chosen: GenerateConfig) -> Restored:
        """Raises ValueError as `Averaged.of` does, and for a sampler that does not fit the run."""
        of = Averaged.of(chosen)
        own = isinstance(chosen.sampler, OwnSampler)
        sampler = chosen.sampler.over(of.run.sampler) if own else chosen.sampler
        sampler.check(of.run.process, "sampler")
        generator = Generator(of.diffusion, sampler, of.run.shape, chosen.seed, of.device)
        return cls(of.run, of.checkpoint, generator, of.half_life)

    def provenance(self) -> dict[str, object]:
        """Everything that its images are a function of."""
        return {
            "run": str(self.run.directory),
            "checkpoint": self.checkpoint.name,
            "ema_half_life": self.half_life,
            "sampler": repr(self.generator.sampler),
            "seed": self.generator.seed,
        }

    def batches(self, start: int, count: int, batch: int) -> Iterator[UInt8[Tensor, "b C H W"]]:
        """Images number `start` to `start + count - 1`, at most `batch` at a time, with a bar on a terminal."""
        for samples in self.samples(start, count, batch):
            yield to_bytes(samples, self.run.pixels)

    def samples(self, start: int, count: int, batch: int) -> Iterator[Float[Tensor, "b C H W"]]:
        """The same in the range of the data, as they were drawn."""
        from tqdm import tqdm

        with tqdm(total=count, desc="sampling", unit="img", disable=None) as bar:
            for first in range(start, start + count, batch):
                size = min(batch, start + count - first)
                yield self.generator.samples(first, size)
                bar.update(size)
