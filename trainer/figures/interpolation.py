"""Images between two real ones, mixed as noise and brought back by the chain (Ho et al. 2020, Fig. 8 and 9)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from models.latents import interpolated
from models.processes import GaussianProcess, Process
from trainer.figures.figure import Drawing, Kind, Timed
from trainer.figures.style import CELL, mosaic, sheet
from trainer.figures.subject import Subject


@dataclass
class Interpolation(Timed):
    """times: how far the ends are noised, as shares of T. pairs: of real images. points: along each way."""

    times: list[float] = field(default_factory=lambda: [0.5])
    pairs: int = 6
    points: int = 9
    needs: ClassVar[type[Process]] = GaussianProcess
    kind: ClassVar[Kind] = Kind.pictures

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 2:
            raise ValueError(f"figure.points must be at least 2, got {self.points}")

    def draw(self, subject: Subject) -> Drawing:
        ends = subject.real(2 * self.pairs)
        left, right = ends[: self.pairs], ends[self.pairs :]
        times, weights = subject.times(self.times), torch.linspace(0, 1, self.points).tolist()
        between = torch.stack(
            [
                interpolated(
                    subject.diffusion, subject.ancestral, (left, right), t, weights, subject.noise(self.pairs)
                )
                for t in times
            ],
            1,
        )
        sources = [end[:, None, None].expand(-1, len(times), 1, -1, -1, -1) for end in (left, right)]
        cells = torch.cat((sources[0], between, sources[1]), 2).flatten(0, 1)
        rows = [f"t = {t}" for t in times] * self.pairs
        columns = ["source", *(f"{w:.2g}" for w in weights), "source"]
        title = r"Interpolation of $x_t$ and $x'_t$ with shared noise; weight of $x'_t$ above"
        figure = sheet(CELL * len(columns) + 1, CELL * len(rows) + 0.6, title)
        mosaic(figure.subplots(), cells, subject.span, columns, rows)
        return Drawing(figure, {"t": times, "weights": weights, "x_0": between, "ends": ends})


@dataclass
class CoarseToFine(Interpolation):
    """The same of one pair, over times: the later t, the less of the ends is kept (Ho et al. 2020, Fig. 9)."""

    times: list[float] = field(default_factory=lambda: [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1])
    pairs: int = 1
