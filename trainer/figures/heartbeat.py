"""Sequences of bits that a run draws, beside those that it was trained on (Sohl-Dickstein et al. 2015, Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.processes import BinomialProcess, Process
from trainer.figures.figure import Drawing, Figure, Kind
from trainer.figures.style import DATA, MODEL, sheet
from trainer.figures.subject import Subject


@dataclass
class Heartbeat(Figure):
    """rows: shown. count: samples of which the share found among as many training sequences is told."""

    rows: int = 25
    count: int = 1000
    needs: ClassVar[type[Process]] = BinomialProcess
    kind: ClassVar[Kind] = Kind.vectors

    def draw(self, subject: Subject) -> Drawing:
        from matplotlib.colors import ListedColormap

        data, samples = (x.flatten(1).cpu() for x in (subject.real(self.count), subject.samples(self.count)))
        known = {tuple(row) for row in data.tolist()}
        valid = sum(tuple(row) in known for row in samples.tolist()) / self.count
        length = data.shape[1]
        figure = sheet(0.36 * length + 1.4, 0.14 * self.rows + 1.2, "Binary sequences, one a row")
        for axes, bits, color, title in zip(
            figure.subplots(1, 2, sharey=True),
            (data, samples),
            (DATA, MODEL),
            ("training data", f"samples: {valid:.1%} are sequences of the data"),
            strict=True,
        ):
            shown = bits[: self.rows]
            axes.pcolormesh(
                shown, cmap=ListedColormap(["#f4f4f4", color]), vmin=0, vmax=1, edgecolor="white", lw=0.8
            )
            axes.set(title=title, xlabel="place in the sequence", ylim=(len(shown), 0))
            axes.set_xticks([place + 0.5 for place in range(0, length, 5)], range(0, length, 5))
            axes.set_yticks([])
            axes.grid(False)
        return Drawing(figure, {"data": data, "samples": samples, "valid": valid})
