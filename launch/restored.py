"""A run, restored to be drawn from: what the doors that look at trained weights have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from configs.doors import GenerateConfig, OwnSampler, RestoreConfig
from configs.runs import load_run
from models.classes import Assignment
from models.diffusion import Chain
from models.guidance import guided
from models.pixels import to_bytes
from trainer.averaged import averaged_diffusion
from trainer.checkpoints.checkpoints import Checkpoints
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

    def provenance(self) -> dict[str, object]:
        """Which weights these are."""
        return weights_of(self.run, self.checkpoint, self.half_life)


@dataclass(frozen=True)
class Restored:
    """A run at one of its checkpoints, and the generator of its images: of each class in turn, if it knows any."""

    run: Run
    checkpoint: Path
    generator: Generator
    half_life: float
    guidance: float

    @classmethod
    def of(cls, chosen: GenerateConfig) -> Restored:
        """Raises ValueError as `Averaged.of` does, and for a sampler or a guidance that does not fit the run."""
        of = Averaged.of(chosen)
        own = isinstance(chosen.sampler, OwnSampler)
        sampler = chosen.sampler.over(of.run.sampler) if own else chosen.sampler
        sampler.check(of.run.process, "sampler")
        check_guidance(of.run, chosen.guidance)
        diffusion, classes = guided(of.diffusion, chosen.guidance), of.run.every_class
        generator = Generator(diffusion, sampler, of.run.shape, chosen.seed, of.device, classes)
        return cls(of.run, of.checkpoint, generator, of.half_life, chosen.guidance)

    def of_classes(self, classes: Assignment) -> Restored:
        """The same, with images of other classes."""
        return replace(self, generator=replace(self.generator, classes=classes))

    def provenance(self) -> dict[str, object]:
        """Everything that its images are a function of."""
        classes = {"classes": repr(self.generator.classes), "guidance": self.guidance}
        return {
            **weights_of(self.run, self.checkpoint, self.half_life),
            "sampler": repr(self.generator.sampler),
            "seed": self.generator.seed,
            **(classes if self.run.network.known_classes else {}),
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


def check_guidance(run: Run, guidance: float) -> None:
    """Raises ValueError for guidance of a run that cannot be guided."""
    if guidance and not run.network.known_classes:
        raise ValueError(f"guidance={guidance:g} is towards a class, and the run knows none (network.classes=0)")
    if guidance:
        run.check_without_class(f"guidance={guidance:g}")


def weights_of(run: Run, checkpoint: Path, half_life: float) -> dict[str, object]:
    """The weights that something was made with, as every door notes them."""
    return {"run": str(run.directory), "checkpoint": checkpoint.name, "ema_half_life": half_life}
