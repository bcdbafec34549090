"""Probes: visitors of the loop that look at the averaged weights and change nothing."""

from __future__ import annotations

from models.diffusion import Chain
from trainer.generator import Generator
from trainer.grid import write_png
from trainer.monitor import Monitor
from trainer.picture import picture
from trainer.run import Run
from trainer.schedules import Every


class SampleGrid:
    """The first samples of the run, drawn from the same noise each time, as one picture; of each class a row."""

    def __init__(self, run: Run) -> None:
        self.every = Every(run.preview.every)
        self.run = run

    def __call__(self, diffusion: Chain, monitor: Monitor, images: int) -> None:
        """Draws the picture into TensorBoard and samples/."""
        run, seed = self.run, self.run.run.seed
        generator = Generator(diffusion, run.preview.sampler, run.shape, seed, monitor.device, run.every_class)
        samples = generator.samples(0, run.preview.count)
        drawn = picture(samples, run.pixels, rows=run.network.known_classes)
        monitor.picture("samples", drawn, images)
        write_png(run.directory / "samples" / f"{images:012d}.png", drawn)
