"""Pictures on the way of Langevin dynamics, annealed or at one noise (Song & Ermon 2019, Fig. 4-5 and 7-8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from models.ladder import NoiseLadder
from models.langevin import LangevinDynamics
from models.processes import Process
from trainer.figures.figure import Drawing, Figure, Kind
from trainer.figures.style import CELL, mosaic, sheet
from trainer.figures.subject import Subject
from trainer.run import Run


@dataclass
class LangevinSteps(Figure):
    """The run's own dynamics. rows: chains. columns: as many moments, evenly from its start to its end."""

    rows: int = 8
    columns: int = 11
    needs: ClassVar[type[Process]] = NoiseLadder
    kind: ClassVar[Kind] = Kind.pictures

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.columns < 2:
            raise ValueError(f"figure.columns must be at least 2, got {self.columns}")

    def check(self, run: Run) -> None:
        super().check(run)
        if not isinstance(run.sampler, LangevinDynamics):
            raise ValueError(
                f"figure=LangevinSteps shows Langevin dynamics, got sampler={type(run.sampler).__name__}"
            )

    def draw(self, subject: Subject) -> Drawing:
        run = subject.run
        sampler = run.sampler
        total = sampler.length(run.process)
        moments = sorted({round(total * number / (self.columns - 1)) for number in range(self.columns)})
        walk = enumerate(sampler.walk(subject.diffusion, run.shape, subject.noise(self.rows)))
        seen = torch.stack([x.cpu() for number, x in walk if number in moments])
        title = "Langevin dynamics: the chains after so many steps"
        figure = sheet(CELL * len(moments) + 0.6, CELL * self.rows + 0.6, title)
        mosaic(figure.subplots(), seen.transpose(0, 1), subject.span, list(map(str, moments)))
        return Drawing(figure, {"steps": moments, "x": seen})
