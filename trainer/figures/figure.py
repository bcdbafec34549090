"""What every figure is: a check of the run, a drawing, and the numbers behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from data_pipeline.atomic import atomically
from models.parameterizations import Parameterization
from models.processes import Process, required
from trainer.figures.subject import Subject
from trainer.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Sheet


class Kind(Enum):
    """What a sample of the data is."""

    anything = "anything"
    pictures = "pictures of more than one pixel"
    points = "points in the plane"
    vectors = "vectors"

    def fits(self, run: Run) -> bool:
        """Whether the run's data are such."""
        channels, height, _ = run.shape
        return {
            Kind.anything: True,
            Kind.pictures: height > 1,
            Kind.points: (channels, height) == (2, 1),
            Kind.vectors: height == 1,
        }[self]


@dataclass(frozen=True)
class Drawing:
    """A figure, and the arrays that it shows."""

    sheet: Sheet
    numbers: Mapping[str, Tensor | np.ndarray | float | list[float] | list[int]]

    def keep(self, path: Path, provenance: str) -> None:
        """Writes the PNG to `path`, and beside it the numbers as .npz, with what they are a function of."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomically(path) as file:
            self.sheet.savefig(file, format="png")
        arrays = {
            name: value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
            for name, value in self.numbers.items()
        }
        with atomically(path.with_suffix(".npz")) as file:
            np.savez_compressed(file, provenance=provenance, **arrays)


@dataclass
class Figure(ABC):
    """A paper's figure. Its fields are what the command line may say of it.

    needs, through_x_0, kind: the process, whether the model must know x̂_0, and the data that it can be drawn for.
    without_class: whether a network that knows classes is asked for what it says without one.
    """

    needs: ClassVar[type[Process]] = Process
    through_x_0: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.anything
    without_class: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ValueError(f"figure.{name} must be at least 1, got {value}")

    def check(self, run: Run) -> None:
        """Raises ValueError for a run that cannot show it."""
        by = f"figure={type(self).__name__}"
        required(run.process, self.needs, by)
        if self.without_class:
            run.check_without_class(by)
        if self.through_x_0 and not isinstance(run.parameterization, Parameterization):
            raise ValueError(f"{by} shows x̂_0, which parameterization={type(run.parameterization).__name__} lacks")
        if not self.kind.fits(run):
            raise ValueError(
                f"{by} shows {self.kind.value}, got data={type(run.data).__name__} of shape {run.shape}"
            )

    @abstractmethod
    def draw(self, subject: Subject) -> Drawing:
        """The figure, for a run that has passed the check."""


@dataclass
class Timed(Figure):
    """A figure of some times, which are given as shares of T."""

    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.times = check_shares("times", self.times)


def check_shares(name: str, shares: list[float]) -> list[float]:
    """Shares of T. Raises ValueError for what is none."""
    if not shares or min(shares) < 0 or max(shares) > 1:
        raise ValueError(f"figure.{name} must be one or more shares of T from 0 to 1, got {shares}")
    return list(shares)


def read_png(path: Path) -> np.ndarray:
    """A PNG as an array [H, W, 3] of bytes."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
