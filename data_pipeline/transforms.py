"""Geometry of images: preparing them once (Pillow), fitting them to the resolution in the stream (numpy)."""

from __future__ import annotations

from enum import Enum

import numpy as np
from jaxtyping import UInt8
from PIL import Image


class Crop(Enum):
    """How an image that is larger than the resolution is cut. The names are what a config says."""

    none = "none"
    center = "center"
    random = "random"


def center_crop_square(image: Image.Image) -> Image.Image:
    """The central square of the shorter side, placed as StyleGAN's dataset_tool places it."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def resize_lanczos(image: Image.Image, resolution: int) -> Image.Image:
    """A square of ``resolution`` pixels, by Pillow's antialiased Lanczos filter."""
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS)


def crop_at(
    image: UInt8[np.ndarray, "c height width"], top: int, left: int, resolution: int
) -> UInt8[np.ndarray, "c resolution resolution"]:
    """The square whose upper left pixel is (top, left), as a view."""
    return image[:, top : top + resolution, left : left + resolution]


def random_crop(
    image: UInt8[np.ndarray, "c height width"], resolution: int, word: int
) -> UInt8[np.ndarray, "c resolution resolution"]:
    """A uniformly placed square: the upper half of ``word`` (64 bits) places its top, the lower its left."""
    _, height, width = image.shape
    # floor(u * n / 2^32) is uniform on 0 … n-1 up to n/2^32.
    top = (word >> 32) * (height - resolution + 1) >> 32
    left = (word & 0xFFFFFFFF) * (width - resolution + 1) >> 32
    return crop_at(image, top, left, resolution)


def horizontal_flip(image: UInt8[np.ndarray, "c height width"], bit: int) -> UInt8[np.ndarray, "c height width"]:
    """The image mirrored left to right where ``bit`` is 1, as a view."""
    return image[:, :, ::-1] if bit else image


def fit(
    image: UInt8[np.ndarray, "c height width"], resolution: int, crop: Crop, word: int
) -> UInt8[np.ndarray, "c resolution resolution"]:
    """Cut an image to ``resolution`` x ``resolution`` pixels; it is never resized here.

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
    return random_crop(image, resolution, word)
