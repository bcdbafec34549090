"""Pictures of many images."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor


def grid(images: UInt8[Tensor, "N C H W"], gap: int = 1, least: int = 32, rows: int = 0) -> UInt8[Tensor, "3 H W"]:
    """The images side by side, as square as they fit; small ones are magnified to at least `least` pixels.

    rows: image i lies in row i modulo their number, as each class of a cycle of classes then does. With fewer than
    two images to a row, or one row, they fill a square.
    """
    count, _, height, width = images.shape
    scale = max(1, least // height)
    if 1 < rows <= count // 2:
        columns = math.ceil(count / rows)
        places = [(number % rows, number // rows) for number in range(count)]
    else:
        columns = math.ceil(math.sqrt(count))
        rows = math.ceil(count / columns)
        places = [divmod(number, columns) for number in range(count)]
    cell_height, cell_width = height * scale + gap, width * scale + gap
    canvas = torch.full((3, rows * cell_height + gap, columns * cell_width + gap), 255, dtype=torch.uint8)
    for (row, column), image in zip(places, images, strict=True):
        top, left = row * cell_height + gap, column * cell_width + gap
        large = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        canvas[:, top : top + height * scale, left : left + width * scale] = large
    return canvas


def write_png(path: Path, image: UInt8[Tensor, "C H W"]) -> None:
    """Writes one image, grayscale or RGB; the directory is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(path)
