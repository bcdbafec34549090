"""The losses of two runs: sliced score matching on raw and on noised data (Song & Ermon 2019, Fig. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from trainer.figures.figure import Drawing, Figure
from trainer.figures.style import DATA, MODEL, sheet
from trainer.figures.subject import Subject
from trainer.run import Run


@dataclass
class Losses(Figure):
    """other: the directory of the second run."""

    other: str = ""
    without_class: ClassVar[bool] = False

    def check(self, run: Run) -> None:
        super().check(run)
        if not self.other:
            raise ValueError("figure.other must be given: the directory of the run to compare with")
        for directory in (run.directory, Path(self.other)):
            logged(directory)

    def draw(self, subject: Subject) -> Drawing:
        directories = {"first": subject.run.directory, "second": Path(self.other)}
        figure = sheet(9.0, 3.2, "Training loss over images seen")
        numbers = {}
        for axes, (name, directory), color in zip(
            figure.subplots(1, 2), directories.items(), (MODEL, DATA), strict=True
        ):
            images, loss = logged(directory)
            axes.plot(images / 1000, loss, color=color, lw=0.9)
            axes.set(title=directory.resolve().name, xlabel="thousand images", ylabel="loss")
            numbers |= {f"images_{name}": images, f"loss_{name}": loss}
        return Drawing(figure, numbers)


def logged(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images and the losses in a run directory's TensorBoard. Raises ValueError where there are none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    if not directory.is_dir() or "loss" not in events.Reload().Tags()["scalars"]:
        raise ValueError(f"{directory} holds no logged losses of a run")
    found = events.Scalars("loss")
    return np.array([event.step for event in found]), np.array([event.value for event in found])
