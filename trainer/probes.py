"""Probes: visitors of the loop that look at the averaged weights and change nothing."""

from __future__ import annotations

from models.diffusion import Chain
from trainer.generator import Generator
from trainer.grid import grid, write_png
from trainer.monitor import Monitor
from trainer.run import Run
from trainer.schedules import Every


class SampleGrid:
    """The first images of the run, drawn from the same noise each time, as one grid; of each class a row."""

    def __init__(self, run: Run) -> None:
        self.every = Every(run.preview.every)
        self.run = run

    def __call__(self, diffusion: Chain, monitor: Monitor, images: int) -> None:
        """Draws the grid into TensorBoard and samples/."""
        run, seed = self.run, self.run.run.seed
        generator = Generator(diffusion, run.preview.sampler, run.shape, seed, monitor.device, run.every_class)
        picture = grid(generator.images(0, run.preview.count), rows=run.network.known_classes)
        monitor.picture("samples", picture, images)
        write_png(self.run.directory / "samples" / f"{images:012d}.png", picture)
