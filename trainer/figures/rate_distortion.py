"""What progressive coding has sent, and how near that is, over its steps (Ho et al. 2020, Fig. 5 and Table 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from models.likelihood import Likelihood
from models.processes import GaussianProcess, Process
from trainer.figures.figure import Drawing, Figure
from trainer.figures.style import MODEL, sheet
from trainer.figures.subject import Subject
from trainer.metrics.bits_per_dim import bits_per_dim, bound_of, check_decoder, first_images, first_labels
from trainer.run import Run


@dataclass
class RateDistortion(Figure):
    """The bound's running sum and the error of x̂_0(x_t); the dots are Table 4's rows.

    shards: of the images that are coded, those of training unless given. count: how many.
    """

    shards: str = ""
    count: int = 64
    needs: ClassVar[type[Process]] = GaussianProcess
    through_x_0: ClassVar[bool] = True
    without_class: ClassVar[bool] = False

    def check(self, run: Run) -> None:
        super().check(run)
        check_decoder(run, "figure=RateDistortion")

    def draw(self, subject: Subject) -> Drawing:
        run = subject.run
        shards = self.shards or run.data.shards
        images, labels = first_images(run.data, shards, self.count), first_labels(run, shards, self.count)
        likelihood = Likelihood(clip=subject.ancestral.clip)
        noise = subject.noise(self.count)
        bound = bound_of(subject.diffusion, likelihood, images, noise, subject.batch, labels=labels)
        table = bits_per_dim(bound, run.shape)["rate_distortion"]
        rate, rmse = bound.rate().mean(0) / (math.log(2) * math.prod(run.shape)), bound.rmse()
        steps = len(rmse) - torch.arange(len(rmse))
        rows = {name: [row[name] for row in table] for name in ("reverse_steps", "rate", "rmse")}
        figure = sheet(9.6, 3.2, f"Rate and distortion of {self.count} images")
        panels = figure.subplots(1, 3)
        names = {
            "reverse_steps": ("reverse steps made, T − t + 1", steps),
            "rmse": ("distortion: RMSE of 255", rmse),
            "rate": ("rate (bits/dim)", rate),
        }
        for axes, (x, y) in zip(
            panels, (("reverse_steps", "rmse"), ("reverse_steps", "rate"), ("rate", "rmse")), strict=True
        ):
            axes.plot(names[x][1], names[y][1], color=MODEL)
            axes.plot(rows[x], rows[y], "o", color=MODEL)
            axes.set(xlabel=names[x][0], ylabel=names[y][0], xlim=(0, None), ylim=(0, None))
        return Drawing(
            figure, {"steps": steps, "rate": rate, "rmse": rmse} | {f"table_4_{k}": v for k, v in rows.items()}
        )
