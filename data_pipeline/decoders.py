"""Decoders: for each format the fastest library, for the images of which it gives the very pixels of Pillow.

Which those are was measured, and the tests compare the bits: JPEG in YCbCr or gray by simplejpeg; PNG of at most 8
bits, neither interlaced nor animated, and WebP that is not animated by OpenCV. Pillow decodes the rest. So the
choice changes no pixel. It does change which damage is noticed: whatever Pillow refuses is refused, and besides it
JPEG data with an error in it, of which Pillow makes an image, and a PNG or JPEG that lacks only its end marker.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipeline.decode import DEFAULT_LIMITS, Limits, UndecodableImage, decode_image
from data_pipeline.headers import Header, png_header, webp_header

Pixels: TypeAlias = UInt8[np.ndarray, "height width channels"]


class Decoder(Enum):
    """Who decodes images. The names are what a config says."""

    fast = "fast"
    pillow = "pillow"


def decode_pixels(
    data: bytes,
    channels: int,
    limits: Limits = DEFAULT_LIMITS,
    decoder: Decoder = Decoder.fast,
    room: Pixels | None = None,
) -> Pixels:
    """Decode a PNG, JPEG or WebP into values 0 … 255, converted as ``decode_image`` does.

    Limits are checked by the header, before anything is decoded.

    Args:
        room: where the pixels go, if they are of its size and the decoder can write there.

    Raises:
        UndecodableImage: damaged, another format, more than 8 bits per channel, or over the limits.
    """
    limits.check_bytes(len(data))
    pixels: Pixels | None = None
    if decoder is Decoder.fast:
        if data.startswith(b"\xff\xd8"):
            pixels = _jpeg(data, channels, limits, room)
        elif header := png_header(data):
            pixels = _opencv(data, channels, limits, header) if channels == 3 or header.gray else None
        elif header := webp_header(data):
            pixels = _opencv(data, channels, limits, header)
    if pixels is None:
        return decode_image(data, channels=channels, limits=limits).transpose(1, 2, 0)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _jpeg(data: bytes, channels: int, limits: Limits, room: Pixels | None) -> Pixels | None:
    """By simplejpeg, or None of a colour space that it converts otherwise than Pillow does."""
    from simplejpeg import decode_jpeg, decode_jpeg_header  # type: ignore[import-untyped]

    try:
        height, width, space, _ = decode_jpeg_header(data)
    except ValueError as error:
        raise UndecodableImage(f"simplejpeg cannot decode the image: {error}") from error
    limits.check_pixels(width, height)
    if space not in ("YCbCr", "Gray"):
        return None
    into = "GRAY" if channels == 1 and space == "Gray" else "RGB"
    fits = room is not None and room.shape == (height, width, 1 if into == "GRAY" else 3)
    try:
        # The exact transform and the interpolation that Pillow's build of the same library uses.
        pixels: Pixels = decode_jpeg(data, into, fastdct=False, fastupsample=False, buffer=room if fits else None)
    except ValueError as error:
        raise UndecodableImage(f"simplejpeg cannot decode the image: {error}") from error
    return pixels if channels == 3 or into == "GRAY" else _gray(pixels)


def _opencv(data: bytes, channels: int, limits: Limits, header: Header) -> Pixels | None:
    """By OpenCV, or None of what it decodes otherwise than Pillow does."""
    import cv2

    limits.check_pixels(header.width, header.height)
    if not header.plain:
        return None
    flag = cv2.IMREAD_GRAYSCALE if header.gray and channels == 1 else cv2.IMREAD_COLOR_RGB
    try:
        pixels: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise UndecodableImage(f"OpenCV cannot decode the image: {error}") from error
    if pixels is None:
        raise UndecodableImage("OpenCV cannot decode the image: it is damaged")
    if pixels.shape[:2] != (header.height, header.width):
        raise UndecodableImage("OpenCV cannot decode the image: its header and its pixels differ in size")
    return pixels if channels == 3 or flag == cv2.IMREAD_GRAYSCALE else _gray(pixels)


def _gray(colour: Pixels) -> UInt8[np.ndarray, "height width"]:
    return np.asarray(Image.fromarray(colour).convert("L"))
