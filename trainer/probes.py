"""Probes: visitors of the loop that look at the averaged weights and change nothing."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from models.diffusion import Chain
from trainer.distributed import World
from trainer.generator import GRANULE, Generator
from trainer.grid import write_png
from trainer.monitor import Monitor
from trainer.picture import picture
from trainer.run import Run
from trainer.schedules import Every


class SampleGrid:
    """The first samples of the run, drawn from the same noise each time, as one picture; of each class a row.

    Every rank draws a share of the same size, so all make the same calls of the network, which may be collective;
    the picture is that of one process. The main rank then writes it outside of any exchange, while the others go
    on to the next step and wait for it there: as long as that takes less than `run.patience`, none gives up.
    """

    def __init__(self, run: Run, world: World) -> None:
        self.every = Every(run.preview.every)
        self.run, self.world = run, world

    def __call__(self, diffusion: Chain, monitor: Monitor, images: int) -> None:
        """Draws the picture into TensorBoard and samples/."""
        run, seed = self.run, self.run.run.seed
        generator = Generator(diffusion, run.preview.sampler, run.shape, seed, monitor.device, run.every_class)
        samples = shared(generator, run.preview.count, self.world)
        if self.world.is_main:
            drawn = picture(samples, run.pixels, rows=run.network.known_classes)
            monitor.picture("samples", drawn, images)
            write_png(run.directory / "samples" / f"{images:012d}.png", drawn)


def shared(generator: Generator, count: int, world: World) -> Float[Tensor, "count C H W"]:
    """Images number 0 to `count - 1`, drawn by all ranks.

    A share is a multiple of GRANULE, to which a smaller one would be filled up anyway: with many ranks the last
    ones draw images past `count`, which nobody keeps.
    """
    share = -(-count // (world.size * GRANULE)) * GRANULE
    start = world.rank * share
    own = generator.samples(start, share)
    samples = own.new_zeros(count, *own.shape[1:])
    kept = own[: max(0, count - start)]
    samples[start : start + len(kept)] = kept
    return world.total(samples)
