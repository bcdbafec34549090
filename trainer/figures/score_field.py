"""The score that a network has learned, beside the true one of a mixture (Song & Ermon 2019, Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_pipeline.synthetic import Mixture
from models.noise import Purpose
from models.processes import PerturbationProcess, Process
from trainer.figures.figure import Drawing, Figure, Kind, check_shares
from trainer.figures.style import DATA, DENSITY, MODEL, arrows, lattice, plane, sheet
from trainer.figures.subject import Subject
from trainer.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Float[Tensor, "N 2 1 1"]


def check_mixture(run: Run, by: str) -> None:
    """Raises ValueError for data whose true score is not known."""
    if not isinstance(run.data, Mixture):
        raise ValueError(f"{by} needs data=mixture, whose score is known, got data={type(run.data).__name__}")


def true_score(law: Mixture, x: Points) -> Points:
    """∇ log of the law's density."""
    return torch.from_numpy(law.score(x.flatten(1).double().cpu().numpy())).to(x).reshape(x.shape)


@dataclass
class ScoreField(Figure):
    """levels: of noise, from 0 (t = 1) to 1 (t = T). reach: half the side of what is shown. arrows: in a row.

    count: points of the noised data over which the error of the score is taken.
    """

    levels: list[float] = field(default_factory=lambda: [0.0, 0.5])
    reach: float = 8.0
    arrows: int = 17
    count: int = 4096
    needs: ClassVar[type[Process]] = PerturbationProcess
    through_x_0: ClassVar[bool] = True
    kind: ClassVar[Kind] = Kind.points

    def __post_init__(self) -> None:
        super().__post_init__()
        self.levels = check_shares("levels", self.levels)
        if not self.reach > 0 or self.arrows < 2:
            raise ValueError(
                f"figure.reach must be positive and figure.arrows at least 2, got {self.reach} and {self.arrows}"
            )

    def check(self, run: Run) -> None:
        super().check(run)
        check_mixture(run, "figure=ScoreField")

    def draw(self, subject: Subject) -> Drawing:
        times = sorted({1 + round(share * (subject.steps - 1)) for share in self.levels})
        figure = sheet(9.2, 4.4 * len(times) + 0.3, "Scores of the noised mixture; its density in the background")
        grid = lattice(self.reach, self.arrows).to(subject.device)
        numbers: dict[str, object] = {"t": times, "grid": grid}
        errors = []
        for t, panels in zip(times, figure.subplots(len(times), 2, squeeze=False), strict=True):
            law = self.law(subject, t)
            fields = {"true": true_score(law, grid), "estimated": subject.diffusion.score(grid, t)}
            errors.append(self.error(subject, law, t))
            for axes, (name, toward), color in zip(panels, fields.items(), (DATA, MODEL), strict=True):
                background(axes, law, self.reach)
                plane(axes, self.reach)
                longest = arrows(axes, grid, toward, color)
                sigma = float(subject.diffusion.process.sigma(t))
                axes.set_title(f"{name}, t = {t} ($\\sigma$ = {sigma:.3g}), longest arrow {longest:.3g}")
                numbers[f"{name}_{t}"] = toward
            panels[1].text(
                0.02, 0.02, f"relative error {errors[-1]:.2g} where data lies", transform=panels[1].transAxes
            )
        return Drawing(figure, numbers | {"relative_error": errors})

    def law(self, subject: Subject, t: int) -> Mixture:
        """The data's law at level t."""
        process = subject.diffusion.process
        return subject.run.data.perturbed(float(process.signal(t)), float(process.sigma(t)))

    def error(self, subject: Subject, law: Mixture, t: int) -> float:
        """E ‖s - s_true‖² / E ‖s_true‖² over the noised data, its square root."""
        x_0 = subject.real(self.count)
        kernel = subject.diffusion.process.marginal(x_0, t)
        x_t = kernel.draw(subject.noise(self.count), Purpose.FORWARD, x_0.shape[1:], step=t)
        true = true_score(law, x_t)
        return float(((subject.diffusion.score(x_t, t) - true).square().sum() / true.square().sum()).sqrt())


def background(axes: Axes, law: Mixture, reach: float) -> None:
    """The density, as colour."""
    line = np.linspace(-reach, reach, 161)
    x, y = np.meshgrid(line, line)
    density = np.exp(law.log_density(np.stack((x.ravel(), y.ravel()), 1))).reshape(x.shape)
    axes.pcolormesh(x, y, density, cmap=DENSITY, vmax=1.6 * density.max(), shading="gouraud", rasterized=True)
    axes.grid(False)
