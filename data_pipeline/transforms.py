"""Geometry of images: preparing them once, and fitting them to the resolution in the stream."""

from __future__ import annotations

import math
from enum import Enum
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Channels: TypeAlias = UInt8[np.ndarray, "c height width"]
Square: TypeAlias = UInt8[np.ndarray, "c resolution resolution"]


class Crop(Enum):
    """How an image that is larger than the resolution is cut. The names are what a config says.

    center, random: a square of the resolution, from the middle or from anywhere. scaled: a square of any side that
    data.crop_scale allows, from anywhere, resized to the resolution.
    """

    none = "none"
    center = "center"
    random = "random"
    scaled = "scaled"


def center_crop_square(image: Image.Image) -> Image.Image:
    """The central square of the shorter side, placed as StyleGAN's dataset_tool places it."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def resize_lanczos(image: Image.Image, resolution: int) -> Image.Image:
    """A square of ``resolution`` pixels, by Pillow's antialiased Lanczos filter."""
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS)


def resize_bicubic(image: Square, resolution: int) -> Square:
    """A square of ``resolution`` pixels, by Pillow's antialiased bicubic filter.

    Its weights are polynomials, rounded to fixed point, and its sums are of integers: machines agree on the bits.
    """
    square = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    resized = np.asarray(Image.fromarray(square).resize((resolution, resolution), Image.Resampling.BICUBIC))
    return resized[None] if len(image) == 1 else resized.transpose(2, 0, 1)


def crop_at(image: Channels, top: int, left: int, side: int) -> Square:
    """The square whose upper left pixel is (top, left), as a view."""
    return image[:, top : top + side, left : left + side]


def random_crop(image: Channels, side: int, word: int) -> Square:
    """A uniformly placed square: the upper half of ``word`` (64 bits) places its top, the lower its left."""
    _, height, width = image.shape
    return crop_at(
        image, _uniform(word >> 32, height - side + 1), _uniform(word & 0xFFFFFFFF, width - side + 1), side
    )


def scaled_crop(
    image: Channels, resolution: int, scale: tuple[float, float], word: int, scale_word: int
) -> Square:
    """A random square, resized to the resolution; the upper half of ``scale_word`` chooses its side.

    The side is uniform over the whole numbers between the two shares of the shorter side that ``scale`` gives, and
    never less than the resolution: a crop is not enlarged.
    """
    shorter = min(image.shape[1:])
    least = max(resolution, math.ceil(scale[0] * shorter))
    most = max(least, math.floor(scale[1] * shorter))
    square = random_crop(image, least + _uniform(scale_word >> 32, most - least + 1), word)
    return square if square.shape[1] == resolution else resize_bicubic(square, resolution)


def _uniform(half_word: int, count: int) -> int:
    # floor(u * n / 2^32) is uniform on 0 … n-1 up to n/2^32.
    return half_word * count >> 32


def mirror(image: Channels) -> None:
    """Mirror an image left to right, in place. Its channels lie innermost in memory."""
    import cv2

    pixels = image.transpose(1, 2, 0)
    cv2.flip(pixels, 1, dst=pixels)


def fit(
    image: Channels,
    resolution: int,
    crop: Crop,
    word: int,
    scale: tuple[float, float] = (1.0, 1.0),
    scale_word: int = 0,
) -> Square:
    """Cut an image to ``resolution`` x ``resolution`` pixels; only ``Crop.scaled`` resizes.

    Raises:
        ValueError: smaller than the resolution, or of another size although ``crop`` is none.
    """
    _, height, width = image.shape
    if height == width == resolution:
        return image
    if min(height, width) < resolution:
        raise ValueError(
            f"the image has {width}x{height} pixels, smaller than data.resolution={resolution}: lower "
            "data.resolution to what the shards hold, or pack larger images"
        )
    if crop is Crop.none:
        raise ValueError(
            f"the image has {width}x{height} pixels, not data.resolution={resolution}: set "
            f"data.crop=center or data.crop=random, or pack again with resolution={resolution}"
        )
    if crop is Crop.center:
        return crop_at(image, (height - resolution) // 2, (width - resolution) // 2, resolution)
    if crop is Crop.scaled:
        return scaled_crop(image, resolution, scale, word, scale_word)
    return random_crop(image, resolution, word)
