"""Pictures of many images."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor


def grid(images: UInt8[Tensor, "N C H W"], gap: int = 1, least: int = 32) -> UInt8[Tensor, "3 H W"]:
    """The images side by side, as square as they fit; small ones are magnified to at least `least` pixels."""
    count, _, height, width = images.shape
    scale = max(1, least // height)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cell_height, cell_width = height * scale + gap, width * scale + gap
    canvas = torch.full((3, rows * cell_height + gap, columns * cell_width + gap), 255, dtype=torch.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * cell_height + gap, number % columns * cell_width + gap
        large = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        canvas[:, top : top + height * scale, left : left + width * scale] = large
    return canvas


def write_png(path: Path, image: UInt8[Tensor, "C H W"]) -> None:
    """Writes one image, grayscale or RGB; the directory is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(path)
