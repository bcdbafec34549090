"""What the network makes of x_t on the way to an image, and how good it is (Ho et al. 2020, Fig. 6, 10, 14)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from models.latents import progressive
from models.processes import GaussianProcess, Process
from trainer.figures.figure import Drawing, Kind, Timed
from trainer.figures.style import CELL, MODEL, OTHER, mosaic, sheet
from trainer.figures.subject import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass
class Progressive(Timed):
    """x̂_0(x_t) along the chain, and its distance from what the chain ends in and, with classes, from the data.

    times: as shares of T. rows: images shown. count: images that the distances are of.
    """

    times: list[float] = field(default_factory=lambda: [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0])
    rows: int = 6
    count: int = 256
    needs: ClassVar[type[Process]] = GaussianProcess
    through_x_0: ClassVar[bool] = True
    kind: ClassVar[Kind] = Kind.pictures

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows > self.count or self.count < 2:
            raise ValueError(f"figure.count must be at least 2 and figure.rows, got {self.count} and {self.rows}")

    def draw(self, subject: Subject) -> Drawing:
        times = sorted({0, *subject.times(self.times)}, reverse=True)
        seen = self.seen(subject, times)
        off = (seen - seen[-1:]).square().flatten(1).mean(1).sqrt() * self.unit(subject)
        numbers = {"t": times, "rmse_to_the_end": off, "x_0": seen[:, : self.rows]}
        yardstick = subject.yardstick
        if yardstick:
            drawn = torch.Generator().manual_seed(0)
            numbers["frechet"] = [yardstick.distance(subject.bytes(x)) for x in seen]
            numbers["frechet_of_a_perfect_sampler"] = yardstick.distance_of_draw(self.count, drawn)
        width = CELL * (len(times) + 1) + 3.4
        figure = sheet(width, max(CELL * self.rows + 0.8, 3.6), r"Progressive generation: $\hat x_0(x_t)$")
        pictures, curves = figure.subfigures(1, 2, width_ratios=[width - 3.4, 3.4])
        cells = seen[:, : self.rows].transpose(0, 1)
        mosaic(pictures.subplots(), cells, subject.span, [f"t = {times[0]}", *map(str, times[1:])])
        panels = curves.subplots(2 if yardstick else 1, 1, sharex=True, squeeze=False)[:, 0]
        unit = "of 255" if subject.run.data.pixels else "data units"
        curve(panels[0], times, off, f"RMSE to the end\n({unit})")
        if yardstick:
            curve(panels[1], times, torch.tensor(numbers["frechet"]), "Fréchet distance\n(classifier features)")
            panels[1].axhline(
                numbers["frechet_of_a_perfect_sampler"], color=OTHER, ls="--", lw=1, label="a perfect sampler"
            )
            panels[1].legend()
            panels[1].set_yscale("log")
        panels[-1].set_xlabel("t (the chain runs to the right)")
        return Drawing(figure, numbers)

    def seen(self, subject: Subject, times: list[int]) -> Float[Tensor, "times count C H W"]:
        """x̂_0 of every image at every time."""
        parts = [
            torch.stack(
                [
                    glimpse.x_0.cpu()
                    for glimpse in progressive(
                        subject.diffusion, subject.ancestral, subject.run.shape, noise, times
                    )
                ]
            )
            for noise in subject.parts(self.count)
        ]
        return torch.cat(parts, 1)

    @staticmethod
    def unit(subject: Subject) -> float:
        """Bytes in a unit of the data, where that is pixels."""
        return subject.run.pixels.deviation if subject.run.data.pixels else 1.0


def curve(axes: Axes, times: list[int], values: Float[Tensor, " times"], label: str) -> None:
    """A quantity over t, which falls to the right."""
    axes.plot(times, values, color=MODEL, marker="o")
    axes.set_xlim(max(times), 0)
    axes.set_ylabel(label)
