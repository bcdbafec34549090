"""Whether Langevin dynamics gives each mode of a mixture its share (Song & Ermon 2019, Fig. 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_pipeline.synthetic import Mixture
from models.diffusion import Diffusion
from models.ladder import NoiseLadder
from models.langevin import AnnealedLangevin, Langevin
from models.parameterizations import Score
from models.processes import Process
from trainer.figures.figure import Drawing, Figure, Kind
from trainer.figures.score_field import check_mixture, true_score
from trainer.figures.style import DATA, MODEL, OTHER, plane, points, sheet
from trainer.figures.subject import Subject
from trainer.run import Run

STILL = 1e-6  # the noise of the ladder on which the data's own score is followed


@dataclass
class LangevinModes(Figure):
    """Independent draws, plain and annealed Langevin dynamics, with the true scores and with the run's.

    count: chains, from the box `start` squared. epsilon: the step size. steps: of each level, and for all levels
    together where the dynamics is plain. reach: half the side of what is shown.
    """

    count: int = 1280
    start: list[float] = field(default_factory=lambda: [-8.0, 8.0])
    epsilon: float = 0.1
    steps: int = 100
    reach: float = 8.0
    needs: ClassVar[type[Process]] = NoiseLadder
    through_x_0: ClassVar[bool] = True
    kind: ClassVar[Kind] = Kind.points

    def __post_init__(self) -> None:
        super().__post_init__()
        self.start = list(self.start)

    def check(self, run: Run) -> None:
        super().check(run)
        check_mixture(run, "figure=LangevinModes")

    def draw(self, subject: Subject) -> Drawing:
        law = subject.run.data
        clouds = {"independent draws": subject.real(self.count).cpu()} | self.walked(subject)
        shares = {name: shares_of_modes(law, x) for name, x in clouds.items()}
        figure = sheet(11.4, 7.4, "Langevin dynamics on a mixture, from a uniform start")
        panels = figure.subplots(2, 3)
        bars(panels[1, 0], law, shares)
        panels[1, 0].set_box_aspect(1)
        places = (panels[0, 0], *panels[0, 1:], *panels[1, 1:])
        for axes, (name, x), color in zip(places, clouds.items(), (DATA, OTHER, OTHER, MODEL, MODEL), strict=True):
            plane(axes, self.reach)
            points(axes, x, color)
            told = ", ".join(f"{share:.2f}" for share in shares[name])
            axes.set_title(f"{name}\nshares of the modes {told}")
        numbers = {"weights": law.weights, "means": np.array(law.means)}
        for name, x in clouds.items():
            key = name.replace(", ", "_").replace(" ", "_")
            numbers |= {f"x_{key}": x, f"shares_{key}": shares[name]}
        return Drawing(figure, numbers)

    def walked(self, subject: Subject) -> dict[str, Float[Tensor, "N 2 1 1"]]:
        """Where the chains end."""
        run, noise = subject.run, subject.noise(self.count)
        ladder, law = run.process, run.data
        plain = Langevin(self.epsilon, self.steps * ladder.levels, start=self.start)
        annealed = AnnealedLangevin(self.epsilon, self.steps, start=self.start)
        true = {"plain": knowing(law, NoiseLadder(1, STILL, STILL)), "annealed": knowing(law, ladder)}
        return {
            f"{name}, {scores} scores": sampler(diffusion, run.shape, noise).cpu()
            for scores, known in (("true", true), ("learned", dict.fromkeys(true, subject.diffusion)))
            for (name, diffusion), sampler in zip(known.items(), (plain, annealed), strict=True)
        }


def knowing(law: Mixture, ladder: NoiseLadder) -> Diffusion[NoiseLadder]:
    """A model that knows the scores of the mixture with each level's noise."""
    laws = [law.perturbed(1.0, float(ladder.sigma(t))) for t in range(ladder.levels + 1)]
    return Diffusion(ladder, Score(), lambda x, t, condition: true_score(laws[int(t[0])], x))


def shares_of_modes(law: Mixture, x: Float[Tensor, "N 2 1 1"]) -> list[float]:
    """The share of the points that are nearest to each component's mean."""
    nearest = torch.cdist(x.flatten(1).double(), torch.tensor(law.means, dtype=torch.float64)).argmin(1)
    return (torch.bincount(nearest, minlength=len(law.means)) / len(x)).tolist()


def bars(axes, law: Mixture, shares: dict[str, list[float]]) -> None:
    """The share of the heaviest mode under each way to draw, against the truth."""
    heaviest = int(np.argmax(law.weights))
    names = list(shares)
    axes.barh(
        [name.replace(", ", "\n") for name in names],
        [shares[name][heaviest] for name in names],
        color=(DATA, OTHER, OTHER, MODEL, MODEL),
    )
    axes.axvline(law.weights[heaviest], color=DATA, ls="--", lw=1)
    axes.invert_yaxis()
    mean = ", ".join(f"{value:g}" for value in law.means[heaviest])
    axes.set(xlim=(0, 1), xlabel=f"share of the mode at ({mean}); dashed: the truth")
    axes.grid(axis="y", visible=False)
