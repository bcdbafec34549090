"""Images that share an x_t and go on from there each by itself (Ho et al. 2020, Fig. 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from models.latents import branched
from models.processes import MarkovProcess, Process
from trainer.figures.figure import Drawing, Kind, Timed
from trainer.figures.style import CELL, mosaic, sheet
from trainer.figures.subject import Subject


@dataclass
class SharedLatents(Timed):
    """times: where the chains part, as shares of T. rows: latents. copies: images from each."""

    times: list[float] = field(default_factory=lambda: [1.0, 0.75, 0.5, 0.25])
    rows: int = 4
    copies: int = 7
    needs: ClassVar[type[Process]] = MarkovProcess
    kind: ClassVar[Kind] = Kind.pictures

    def draw(self, subject: Subject) -> Drawing:
        times = subject.times(self.times, least=1)
        found = list(
            branched(
                subject.diffusion,
                subject.ancestral,
                subject.run.shape,
                subject.noise(self.rows),
                times,
                self.copies,
            )
        )
        across = min(2, len(found))
        down = -(-len(found) // across)
        size = CELL * (self.copies + 1) * across + 1, (CELL * self.rows + 0.5) * down + 0.4
        figure = sheet(*size, "Chains that share $x_t$, at the left of each row")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for axes in panels[len(found) :]:
            axes.set_axis_off()
        apart = {}
        for axes, (t, x_t, x_0) in zip(panels, found, strict=False):
            shown = x_t / x_t.abs().amax((1, 2, 3), keepdim=True).clamp(min=1)
            mosaic(axes, torch.cat((shown[:, None], x_0), 1), subject.span, ["$x_t$"])
            axes.set_xlabel(f"shared until t = {t}")
            apart[t] = (x_0 - x_0.mean(1, keepdim=True)).square().mean().sqrt()
        numbers = {"t": list(apart), "spread_of_copies": torch.stack(list(apart.values()))}
        return Drawing(figure, numbers | {f"x_0_from_{t}": x_0 for t, _, x_0 in found})
