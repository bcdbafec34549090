"""Data, the same with noise, drawn free of it again, and samples (Sohl-Dickstein et al. 2015, Fig. 3 and 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from models.noise import Purpose
from models.posterior import Course, GaussianFactor, sample_posterior
from models.processes import GaussianProcess, Process
from trainer.figures.figure import Drawing, Figure, Kind
from trainer.figures.style import CELL, mosaic, sheet
from trainer.figures.subject import Subject


@dataclass
class Denoising(Figure):
    """sigma: of the noise, in the model's units. course, rounds: of the chain times N(noisy, sigma²).

    count: pictures.
    """

    sigma: float = 1.0
    course: Course = Course.power
    rounds: int = 1
    count: int = 25
    needs: ClassVar[type[Process]] = GaussianProcess
    kind: ClassVar[Kind] = Kind.pictures

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma > 0:
            raise ValueError(f"figure.sigma must be positive, got {self.sigma}")

    def draw(self, subject: Subject) -> Drawing:
        data, noise = subject.real(self.count), subject.noise(self.count)
        noisy = data + self.sigma * noise.normal(Purpose.KNOWN, data.shape[1:])
        factor = GaussianFactor(noisy, torch.full_like(noisy, self.sigma))
        shape = subject.run.shape
        clip = subject.ancestral.clip
        denoised = sample_posterior(subject.diffusion, factor, shape, noise, self.course, self.rounds, clip=clip)
        panels = {
            "data": data,
            f"with noise of std {self.sigma:g}": noisy,
            "denoised": denoised,
            "samples": subject.samples(self.count),
        }
        side = math.isqrt(self.count - 1) + 1
        figure = sheet(2 * CELL * side + 0.5, 2 * (CELL * side + 0.4) + 0.4, "Denoising by the posterior")
        for axes, (title, x) in zip(figure.subplots(2, 2).flatten(), panels.items(), strict=True):
            blank = x.new_full((side**2 - self.count, *shape), subject.span[1])
            mosaic(axes, torch.cat((x, blank)).reshape(side, side, *shape), subject.span)
            axes.set_title(title)
        rmse = {name: (x - data).square().mean().sqrt() for name, x in (("noisy", noisy), ("denoised", denoised))}
        arrays = {"data": data, "noisy": noisy, "denoised": denoised, "samples": panels["samples"]}
        return Drawing(figure, arrays | {f"rmse_{name}": value for name, value in rmse.items()})
