"""A run, restored to be drawn from: what `launch.sample` and `launch.evaluate` have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor

from configs.doors import GenerateConfig
from configs.runs import load_run
from models.pixels import to_bytes
from trainer.averaged import averaged_diffusion
from trainer.checkpoint import Checkpoints
from trainer.distributed import default_device
from trainer.generator import Generator
from trainer.run import Run


@dataclass(frozen=True)
class Restored:
    """A run at one of its checkpoints, and the generator of its images."""

    run: Run
    checkpoint: Path
    generator: Generator
    half_life: float

    @classmethod
    def of(cls, chosen: GenerateConfig) -> Restored:
        """Raises ValueError where the run, the checkpoint or the average is not there."""
        run = load_run(Path(chosen.run.directory))
        checkpoint = Checkpoints(run.checkpoints()).at(chosen.checkpoint)
        half_life = chosen.half_life or run.ema.half_lives[0]
        device = default_device()
        diffusion = averaged_diffusion(run, checkpoint, half_life, device)
        generator = Generator(diffusion, chosen.sampler or run.sampler, run.shape, chosen.seed, device)
        return cls(run, checkpoint, generator, half_life)

    def batches(self, start: int, count: int, batch: int) -> Iterator[UInt8[Tensor, "b C H W"]]:
        """Images number `start` to `start + count - 1`, at most `batch` at a time, with a bar on a terminal."""
        yield from map(to_bytes, self.samples(start, count, batch))

    def samples(self, start: int, count: int, batch: int) -> Iterator[Float[Tensor, "b C H W"]]:
        """The same in the range of the data, as they were drawn."""
        from tqdm import tqdm

        with tqdm(total=count, desc="sampling", unit="img", disable=None) as bar:
            for first in range(start, start + count, batch):
                size = min(batch, start + count - first)
                yield self.generator.samples(first, size)
                bar.update(size)
