"""Samples of any kind as one picture: what a person can see of data that may be no images."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.pixels import PixelRange, to_bytes
from trainer.grid import grid

CELL = 8  # pixels to an element of a vector
SIDE = 256  # pixels, of a plane of points
REACH = 3.0  # how far the plane goes from 0, at least: three standard deviations of standardised data


def picture(x: Float[Tensor, "N C H W"], pixels: PixelRange, rows: int = 0) -> UInt8[Tensor, "3 h w"]:
    """Images in a grid; points of a plane as dots on it; longer vectors as rows of gray cells, by their pixels.

    rows: of a grid of images, as `grid` has them.
    """
    count, channels, height, width = x.shape
    if height * width > 1:
        return grid(to_bytes(x, pixels), rows=rows)
    if channels == 2:
        return plane(x[:, :, 0, 0])
    return grid(to_bytes(x.reshape(1, 1, count, channels), pixels), least=CELL * count)


def plane(points: Float[Tensor, "N 2"]) -> UInt8[Tensor, "3 side side"]:
    """Black where points are, over gray axes, on a square around 0 that is doubled until it holds 99 % of them."""
    points = points[points.isfinite().all(1)]
    reach = REACH
    while len(points) and float((points.abs() > reach).any(1).float().mean()) > 0.01:
        reach *= 2
    points = points[(points.abs() <= reach).all(1)]
    column, row = ((points * torch.tensor([1.0, -1.0]) / reach + 1) / 2 * (SIDE - 1)).round().long().T
    canvas = torch.full((SIDE, SIDE), 255, dtype=torch.uint8)
    canvas[SIDE // 2] = canvas[:, SIDE // 2] = 200
    canvas[row, column] = 0
    return canvas.expand(3, -1, -1)
