"""How all figures look: one style, pictures in a mosaic, points and arrows in a plane. Drawn without a display."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

DATA, MODEL, OTHER = "#1f5fa8", "#c8442c", "#6b6b6b"  # what is real, what a model says, and what neither is
DENSITY = "Blues"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "savefig.facecolor": "white",
}
CELL = 0.6  # inches of a picture in a mosaic


@contextmanager
def styled() -> Iterator[None]:
    """Within it, what is drawn looks as all figures do."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def sheet(width: float, height: float, title: str) -> Sheet:
    """An empty figure of so many inches. It belongs to no window, and writes its PNG by Agg."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    figure.suptitle(title, fontsize=11)
    return figure


def mosaic(
    axes: Axes,
    cells: Float[Tensor, "R C c H W"],
    span: tuple[float, float],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> None:
    """Pictures side by side, `span` from black to white; labels above columns and left of rows, where given."""
    count, across, _, height, width = cells.shape
    gap = max(1, height // 16)
    tall, wide = height + gap, width + gap
    canvas = torch.ones(3, count * tall - gap, across * wide - gap)
    low, high = span
    for row, line in enumerate(((cells.float().cpu() - low) / (high - low)).clamp(0, 1)):
        for column, picture in enumerate(line):
            top, left = row * tall, column * wide
            canvas[:, top : top + height, left : left + width] = picture.expand(3, height, width)
    axes.imshow(canvas.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False, pad=2)
    axes.set_xticks([wide * number + (width - 1) / 2 for number in range(len(columns))], columns)
    axes.set_yticks([tall * number + (height - 1) / 2 for number in range(len(rows))], rows)


def plane(axes: Axes, reach: float) -> None:
    """Square axes on which a unit is as long along both, from -reach to reach."""
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    axes.locator_params(nbins=6, integer=True)


def points(axes: Axes, x: Float[Tensor, "N 2 1 1"], color: str) -> None:
    """A cloud of points in the plane."""
    x = x.flatten(1).cpu()
    axes.scatter(x[:, 0], x[:, 1], s=4, color=color, alpha=0.5, linewidths=0)


def lattice(reach: float, count: int) -> Float[Tensor, "N 2 1 1"]:
    """count² points, evenly over the square from -reach to reach."""
    line = torch.linspace(-reach, reach, count)
    return torch.cartesian_prod(line, line)[:, :, None, None]


def arrows(axes: Axes, x: Float[Tensor, "N 2 1 1"], toward: Float[Tensor, "N 2 1 1"], color: str) -> float:
    """An arrow at each x, the longest as long as the points lie apart; returns the true length of that one."""
    x, toward = x.flatten(1).cpu().double().numpy(), toward.flatten(1).cpu().double().numpy()
    longest = float(np.linalg.norm(toward, axis=1).max())
    apart = (x.max() - x.min()) / (len(x) ** 0.5 - 1)
    axes.quiver(
        *x.T, *toward.T, color=color, angles="xy", scale_units="xy", scale=max(longest, 1e-12) / apart, width=0.004
    )
    return longest
