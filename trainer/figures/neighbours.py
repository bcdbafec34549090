"""Samples beside the training images nearest to them (Ho et al. 2020, Fig. 12 and 15)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.figures.figure import Drawing, Figure, Kind
from trainer.figures.style import CELL, mosaic, sheet
from trainer.figures.subject import Subject
from trainer.metrics.neighbours import Features, nearest


@dataclass
class Neighbours(Figure):
    """In pixels and, where the data has classes, in a classifier's features.

    rows: samples. nearest: neighbours of each. pool: training images looked through, at most an epoch.
    """

    rows: int = 8
    nearest: int = 7
    pool: int = 10_000
    kind: ClassVar[Kind] = Kind.pictures
    without_class: ClassVar[bool] = False

    def draw(self, subject: Subject) -> Drawing:
        samples, pool = subject.samples(self.rows), subject.real(subject.distinct(self.pool)).cpu()
        spaces: dict[str, Features] = {"pixels": lambda x: x.flatten(1)}
        yardstick = subject.yardstick
        if yardstick:
            spaces["classifier features"] = lambda x: yardstick.features(subject.bytes(x))
        width = (CELL * (self.nearest + 1) + 0.4) * len(spaces)
        figure = sheet(width, CELL * self.rows + 1, "Samples (left) and their nearest training images")
        numbers = {"samples": samples}
        for axes, (space, features) in zip(
            figure.subplots(1, len(spaces), squeeze=False)[0], spaces.items(), strict=True
        ):
            found = nearest(samples, pool, self.nearest, features)
            mosaic(axes, torch.cat((samples[:, None], pool[found.rows]), 1), subject.span, ["sample"])
            axes.set_xlabel(f"by distance in {space}, rising")
            key = space.replace(" ", "_")
            numbers |= {f"distance_in_{key}": found.distances, f"neighbours_in_{key}": pool[found.rows]}
        return Drawing(figure, numbers)
