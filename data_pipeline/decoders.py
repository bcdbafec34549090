"""Decoders: for each format the fastest library, for the images of which it gives the very pixels of Pillow.

Which those are was measured, and the tests compare the bits: JPEG in YCbCr or gray by simplejpeg; PNG of at most 8
bits, neither interlaced nor animated, and WebP that is not animated by OpenCV. Pillow decodes the rest. So the
choice changes no pixel. It does change which damage is noticed: whatever Pillow refuses is refused, and besides it
JPEG data with an error in it, of which Pillow makes an image, and a PNG or JPEG that lacks only its end marker.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipeline.decode import DEFAULT_LIMITS, Limits, UndecodableImage, decode_image
from data_pipeline.headers import Header, png_header, webp_header

Pixels: TypeAlias = UInt8[np.ndarray, "height width channels"]
# room for the pixels, or None -> the pixels: room itself, if they fit there and the library can write there
Decode: TypeAlias = Callable[[Pixels | None], Pixels]


class Decoder(Enum):
    """Who decodes images. The names are what a config says."""

    fast = "fast"
    pillow = "pillow"


def decode_pixels(
    data: bytes, channels: int, limits: Limits = DEFAULT_LIMITS, decoder: Decoder = Decoder.fast
) -> Pixels:
    """Decode a PNG, JPEG or WebP into values 0 … 255, converted as ``decode_image`` does.

    Raises:
        UndecodableImage: damaged, another format, more than 8 bits per channel, or over the limits.
    """
    limits.check_bytes(len(data))
    return examine(data, channels, limits, decoder)(None)


def examine(data: bytes, channels: int, limits: Limits, decoder: Decoder) -> Decode:
    """Check an image's size by its header; what is returned decodes it. Its length has been checked before.

    Raises:
        UndecodableImage: over the limits, or the header is damaged.
    """
    decode: Decode | None = None
    if decoder is Decoder.fast:
        if data.startswith(b"\xff\xd8"):
            decode = _examine_jpeg(data, channels, limits)
        elif header := png_header(data):
            decode = _examine_plain(data, channels, limits, header) if channels == 3 or header.gray else None
        elif header := webp_header(data):
            decode = _examine_plain(data, channels, limits, header)
    return decode or partial(_by_pillow, data, channels, limits)


def _examine_jpeg(data: bytes, channels: int, limits: Limits) -> Decode | None:
    import simplejpeg  # type: ignore[import-untyped]

    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise UndecodableImage(f"simplejpeg cannot decode the image: {error}") from error
    limits.check_pixels(width, height)
    if space not in ("YCbCr", "Gray"):
        return None  # simplejpeg converts the others in another way than Pillow does
    if channels == 1 and space == "YCbCr":
        return partial(_gray, partial(_by_simplejpeg, data, (height, width, 3), "RGB"))
    return partial(_by_simplejpeg, data, (height, width, channels), "RGB" if channels == 3 else "GRAY")


def _examine_plain(data: bytes, channels: int, limits: Limits, header: Header) -> Decode | None:
    limits.check_pixels(header.width, header.height)
    if not header.plain:
        return None
    if channels == 1 and not header.gray:
        return partial(_gray, partial(_by_opencv, data, header, 3))
    return partial(_by_opencv, data, header, channels)


def _by_pillow(data: bytes, channels: int, limits: Limits, room: Pixels | None) -> Pixels:
    return decode_image(data, channels=channels, limits=limits).transpose(1, 2, 0)


def _by_simplejpeg(data: bytes, shape: tuple[int, int, int], space: str, room: Pixels | None) -> Pixels:
    import simplejpeg

    if room is None or room.shape != shape:
        room = np.empty(shape, np.uint8)
    try:
        # The exact transform and the smooth interpolation, which Pillow uses.
        simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False, buffer=room)
    except ValueError as error:
        raise UndecodableImage(f"simplejpeg cannot decode the image: {error}") from error
    return room


def _by_opencv(data: bytes, header: Header, channels: int, room: Pixels | None) -> Pixels:
    import cv2

    flags = (cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UndecodableImage(f"OpenCV cannot decode the image: {error}") from error
    if pixels is None:
        raise UndecodableImage("OpenCV cannot decode the image: it is damaged")
    if pixels.shape[:2] != (header.height, header.width):
        raise UndecodableImage("OpenCV cannot decode the image: its header and its pixels differ in size")
    return pixels if channels == 3 else pixels[..., None]


def _gray(decode: Decode, room: Pixels | None) -> Pixels:
    return np.asarray(Image.fromarray(decode(None)).convert("L"))[..., None]
