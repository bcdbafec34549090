"""Data on its way to noise, and noise on its way back (Sohl-Dickstein et al. 2015, Fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from models.noise import Purpose
from models.processes import GaussianProcess, MarkovProcess, Process
from trainer.figures.figure import Drawing, Kind, Timed
from trainer.figures.style import CELL, DATA, MODEL, OTHER, arrows, lattice, mosaic, plane, points, sheet
from trainer.figures.subject import Subject

Course = Float[Tensor, "times count C H W"]


def forward(subject: Subject, times: Sequence[int], count: int) -> Course:
    """x_t ~ q(x_t | x_0) of the same data at each time."""
    x_0, noise = subject.real(count), subject.noise(count)
    process = subject.diffusion.process
    drawn = [process.marginal(x_0, t).draw(noise, Purpose.FORWARD, x_0.shape[1:], step=t) for t in times]
    return torch.stack(drawn).cpu()


def reverse(subject: Subject, times: Sequence[int], count: int) -> Course:
    """x_t of the reverse chain at each time, in the order of `times`."""
    parts = []
    for noise in subject.parts(count):
        walk = subject.ancestral.walk(subject.diffusion, subject.run.shape, noise)
        seen = {t: x.cpu() for t, x in walk if t in times}
        parts.append(torch.stack([seen[t] for t in times]))
    return torch.cat(parts, 1)


@dataclass
class ForwardReverse(Timed):
    """Rows of pictures: q(x_t | x_0) above, the reverse chain below. times: as shares of T. rows: of each."""

    times: list[float] = field(default_factory=lambda: [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1])
    rows: int = 4
    needs: ClassVar[type[Process]] = MarkovProcess
    kind: ClassVar[Kind] = Kind.pictures

    def draw(self, subject: Subject) -> Drawing:
        times = subject.times(self.times)
        found = {"forward": forward(subject, times, self.rows), "reverse": reverse(subject, times, self.rows)}
        figure = sheet(CELL * len(times) + 0.6, 2 * (CELL * self.rows + 0.5) + 0.4, "Forward and reverse")
        for axes, (name, course) in zip(figure.subplots(2, 1), found.items(), strict=True):
            mosaic(axes, course.transpose(0, 1), subject.span, [f"t = {times[0]}", *map(str, times[1:])])
            axes.set_xlabel(
                {"forward": "forward: $q(x_t | x_0)$", "reverse": "reverse, from the right: $p(x_t)$"}[name]
            )
        return Drawing(figure, {"t": times} | found)


@dataclass
class Drift(Timed):
    """Points in the plane: forward, reverse, and the drift f_mu(x_t, t) - x_t, at three or more times.

    times: as shares of T; the drift of the pinned step at t = 1 is not learned, so the first is shown at t = 2.
    count: points. reach: half the side of what is shown. arrows: in a row.
    """

    times: list[float] = field(default_factory=lambda: [0, 0.5, 1])
    count: int = 2000
    reach: float = 3.0
    arrows: int = 19
    needs: ClassVar[type[Process]] = GaussianProcess
    kind: ClassVar[Kind] = Kind.points

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.reach > 0 or self.arrows < 2:
            raise ValueError(
                f"figure.reach must be positive and figure.arrows at least 2, got {self.reach} and {self.arrows}"
            )

    def draw(self, subject: Subject) -> Drawing:
        times = subject.times(self.times)
        there, back = forward(subject, times, self.count), reverse(subject, times, self.count)
        figure = sheet(2.7 * len(times) + 0.6, 8.4, "Forward, reverse and drift")
        panels = figure.subplots(3, len(times), sharex=True, sharey=True, squeeze=False)
        drifts, grid = [], lattice(self.reach, self.arrows).to(subject.device)
        for column, t in enumerate(times):
            for axes in panels[:, column]:
                plane(axes, self.reach)
            points(panels[0, column], there[column], DATA)
            points(panels[1, column], back[column], MODEL)
            at = max(t, min(2, subject.steps))
            drifts.append((subject.diffusion.reverse(grid, at, at - 1).mode - grid).cpu())
            longest = arrows(panels[2, column], grid, drifts[-1], OTHER)
            panels[0, column].set_title(f"t = {t}")
            panels[2, column].set_title(f"t = {at}, longest arrow {longest:.2g}")
        for axes, name in zip(panels[:, 0], ("$q(x_t)$", "$p(x_t)$", r"$f_\mu(x_t, t) - x_t$"), strict=True):
            axes.set_ylabel(f"{name}\n\n$x_2$")
        for axes in panels[:, 1:].flatten():
            axes.set_ylabel("")
        for axes in panels[:-1].flatten():
            axes.set_xlabel("")
        return Drawing(
            figure, {"t": times, "forward": there, "reverse": back, "grid": grid, "drift": torch.stack(drifts)}
        )
