"""Pictures with a hole, and draws of what may have been in it (Sohl-Dickstein et al. 2015, Fig. 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.ladder import NoiseLadder
from models.langevin import AnnealedLangevin, Known
from models.posterior import Delta, sample_posterior
from models.processes import MarkovProcess, required
from trainer.figures.figure import Drawing, Figure, Kind, read_png
from trainer.figures.style import CELL, mosaic, sheet
from trainer.figures.subject import Subject
from trainer.run import Run


@dataclass
class Inpainting(Figure):
    """hole: top, left, bottom and right of what is unknown, as shares of the picture; or mask: a PNG of the
    pictures' size, white where unknown. rows: pictures. copies: draws for each. rounds: of each step of a chain
    (see sample_posterior); annealed Langevin dynamics has none.
    """

    hole: list[float] = field(default_factory=lambda: [0.25, 0.25, 0.75, 0.75])
    mask: str = ""
    rows: int = 6
    copies: int = 6
    rounds: int = 1
    kind: ClassVar[Kind] = Kind.pictures

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hole = list(self.hole)
        fits = len(self.hole) == 4 and all(0 <= share <= 1 for share in self.hole)
        if not (fits and self.hole[0] < self.hole[2] and self.hole[1] < self.hole[3]):
            raise ValueError(f"figure.hole must be top < bottom and left < right in [0, 1], got {self.hole}")

    def check(self, run: Run) -> None:
        super().check(run)
        if isinstance(run.process, NoiseLadder):
            if not isinstance(run.sampler, AnnealedLangevin):
                raise ValueError(
                    "figure=Inpainting on a ladder is by annealed Langevin dynamics, got "
                    f"sampler={type(run.sampler).__name__}"
                )
        else:
            required(run.process, MarkovProcess, "figure=Inpainting")
        self.known(run)

    def known(self, run: Run) -> Bool[Tensor, "1 H W"]:
        """Where a picture is known. Raises ValueError for a mask of another size, or one that leaves nothing."""
        height, width = run.shape[1:]
        unknown = torch.zeros(1, height, width, dtype=torch.bool)
        if self.mask:
            white = torch.from_numpy(read_png(Path(self.mask)).min(2) > 127)
            if white.shape != (height, width):
                raise ValueError(
                    f"figure.mask={self.mask} must be of the pictures' size {height}x{width}, got "
                    f"{white.shape[0]}x{white.shape[1]}"
                )
            unknown[0] = white
        else:
            top, left, bottom, right = (
                round(share * side) for share, side in zip(self.hole, (height, width) * 2, strict=True)
            )
            unknown[:, top:bottom, left:right] = True
        if unknown.all() or not unknown.any():
            raise ValueError("figure.hole or figure.mask must leave some of the picture known and some unknown")
        return ~unknown

    def draw(self, subject: Subject) -> Drawing:
        run, data = subject.run, subject.real(self.rows)
        known = self.known(run).to(subject.device)
        filled = self.filled(subject, data.repeat_interleave(self.copies, 0), known)
        filled = filled.reshape(self.rows, self.copies, *run.shape)
        gray = sum(subject.span) / 2
        cells = torch.cat((data[:, None], torch.where(known, data, gray)[:, None], filled), 1)
        figure = sheet(CELL * (self.copies + 2) + 0.6, CELL * self.rows + 0.6, "Inpainting: draws of the hole")
        columns = ["data", "known", *map(str, range(1, self.copies + 1))]
        mosaic(figure.subplots(), cells, subject.span, columns)
        off = (filled - data[:, None])[..., ~known[0]].square().mean().sqrt()
        return Drawing(figure, {"data": data, "known": known, "filled": filled, "rmse_in_the_hole": off})

    def filled(
        self, subject: Subject, x: Float[Tensor, "B C H W"], known: Bool[Tensor, "1 H W"]
    ) -> Float[Tensor, "B C H W"]:
        """Each x with its unknown part drawn."""
        run, noise = subject.run, subject.noise(len(x))
        if isinstance(run.sampler, AnnealedLangevin):
            return run.sampler.inpaint(subject.diffusion, Known(x, known[None]), noise)
        factor = Delta(x, known.expand(run.shape).float())
        clip = subject.ancestral.clip
        return sample_posterior(subject.diffusion, factor, run.shape, noise, rounds=self.rounds, clip=clip)
