"""Bytes to images, labels and captions; bytes come from strangers, so only known formats are decoded."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipeline.documents import Json

IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
# What Pillow's readers are known to raise on damaged data (a test fuzzes them).
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class UndecodableImage(ValueError):
    """A sample without a usable image: damaged, of an unknown format, over the limits, or in a lost shard."""


@dataclass(frozen=True)
class Limits:
    """What one sample may cost at most: of its encoded image the bytes, and the pixels once decoded.

    max_document: bytes of a label or of a ``json`` member.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64 * 10**6
    max_document: int = 2**20

    def check_bytes(self, size: int) -> None:
        """Raises UndecodableImage if the encoded image is empty or too long."""
        if size == 0:
            raise UndecodableImage("the image has no bytes")
        if size > self.max_bytes:
            raise UndecodableImage(f"the image has {size} bytes, and at most {self.max_bytes} are decoded")

    def check_document(self, size: int) -> None:
        """Raises ValueError if a label or a JSON object is too long to be one."""
        if size > self.max_document:
            raise ValueError(f"the member has {size} bytes, and at most {self.max_document} are read")

    def check_pixels(self, width: int, height: int) -> None:
        """Raises UndecodableImage if the image, by its header, would be too large once decoded."""
        if width * height > self.max_pixels:
            raise UndecodableImage(
                f"the image has {width}x{height} pixels, and at most {self.max_pixels} are decoded"
            )


DEFAULT_LIMITS = Limits()


def open_header(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """A PNG, JPEG or WebP of which the header is read, and no pixel.

    Raises:
        UndecodableImage: another format or a damaged header, more than 8 bits per channel, or over the limits.
    """
    limits.check_bytes(len(data))
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except _DAMAGE as error:
        raise UndecodableImage(f"Pillow cannot decode the image's header: {error}") from error
    limits.check_pixels(*image.size)
    if image.mode not in _MODES:
        raise UndecodableImage(f"the image has mode {image.mode}, expected 8 bits per channel")
    return image


def open_image(data: bytes, *, channels: int, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Decode a PNG, JPEG or WebP into a Pillow image of mode L (1 channel) or RGB (3 channels).

    Colour becomes gray and gray becomes colour as ``channels`` asks; transparency is dropped, and an
    orientation tag is not applied (as in StyleGAN's tool). Of an animation, the first frame.

    Raises:
        UndecodableImage: damaged, another format, more than 8 bits per channel, or over the limits.
    """
    assert channels in (1, 3), channels
    image = open_header(data, limits)
    try:
        image.load()
        mode = "L" if channels == 1 else "RGB"
        return image if image.mode == mode else image.convert(mode)  # convert copies even where it changes nothing
    except _DAMAGE as error:
        raise UndecodableImage(f"Pillow cannot decode the image: {error}") from error


def decode_image(
    data: bytes, *, channels: int, limits: Limits = DEFAULT_LIMITS
) -> UInt8[np.ndarray, "channels height width"]:
    """Decode a PNG, JPEG or WebP into values 0 … 255, as ``open_image`` does.

    The result is a view whose channels lie innermost in memory: the copy into the batch is the only one.

    Raises:
        UndecodableImage: as ``open_image``.
    """
    pixels = np.asarray(open_image(data, channels=channels, limits=limits))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def encode_png(image: Image.Image) -> bytes:
    """The image as PNG: lossless, and the same bytes for the same pixels and Pillow version."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def decode_label(data: bytes) -> int:
    """A class label: a non-negative integer in ASCII digits, as webdataset writes ``cls``.

    Raises:
        ValueError: anything else.
    """
    digits = data.strip()
    if not digits.isdigit() or len(digits) > 18:
        raise ValueError(f"a class label must be a non-negative integer in ASCII digits, got {data[:40]!r}")
    return int(digits)


def decode_json(data: bytes) -> dict[str, Json]:
    """A sample's ``json`` member: one JSON object.

    Raises:
        ValueError: not JSON, or not an object.
    """
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("a json member must not be nested so deeply") from error
    if not isinstance(document, dict):
        raise ValueError(f"a json member must hold an object, got {type(document).__name__}")
    return document


def label_in_json(data: bytes) -> int:
    """The class that a ``json`` member has under cls or label, as img2dataset and others name it.

    Raises:
        ValueError: as ``decode_json``, or no non-negative integer there.
    """
    document = decode_json(data)
    label = document.get("cls", document.get("label"))
    if type(label) is not int or label < 0:
        raise ValueError(f"has no class: expected a non-negative integer under cls or label, got {label!r:.40}")
    return label


def caption_in_json(data: bytes) -> str:
    """The text that a ``json`` member has under caption.

    Raises:
        ValueError: as ``decode_json``, or no text there.
    """
    caption = decode_json(data).get("caption")
    if not isinstance(caption, str):
        raise ValueError(f"has no caption: expected text under caption, got {caption!r:.40}")
    return caption
