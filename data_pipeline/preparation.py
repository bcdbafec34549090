"""Preparation: what packing does to an image; nothing, or the crop and resize of StyleGAN's tool."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import Enum

from PIL import Image

from data_pipeline.decode import DEFAULT_LIMITS, UndecodableImage, encode_png, open_header, open_image
from data_pipeline.documents import Json
from data_pipeline.transforms import center_crop_square, resize_lanczos

# How a file in each format begins.
_BEGINNINGS = {"png": (b"\x89PNG\r\n\x1a\n",), "jpg": (b"\xff\xd8\xff",), "webp": (b"RIFF",)}
JPEG_QUALITY = 95


class Format(Enum):
    """What a prepared image is encoded as."""

    png = "png"
    jpg = "jpg"
    webp = "webp"


class Check(Enum):
    """How closely bytes that pass through untouched are looked at."""

    decode = "decode"
    header = "header"
    none = "none"


@dataclass(frozen=True)
class Preparation:
    """How each image is packed.

    Without ``resolution`` its bytes pass through untouched. ``check`` says what is done to see that they are an
    image: decode it whole (the default), read its header only, or compare its first bytes with its format's. A
    flipped bit in the pixels of a PNG is seen by the first alone; in those of a JPEG or a WebP, which have no
    checksum, by none of them as a rule. A cut WebP is seen by the second as well.

    With ``resolution``, images become what StyleGAN's tool makes of LSUN: the central square of the shorter side,
    resized by Pillow's Lanczos filter. They are kept as PNG (the default), as WebP (without loss unless a quality
    is given) or as JPEG (in full colour resolution, of quality 95 unless another is given).
    """

    resolution: int | None = None
    channels: int = 3
    format: Format | None = None
    quality: int | None = None
    check: Check | None = None

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"resolution must be at least 1, got {self.resolution}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (gray) or 3 (colour), got {self.channels}")
        if self.resolution is None and self.format is not None:
            raise ValueError(
                f"format={self.format.name} needs a resolution: without one the images' bytes pass through"
            )
        if self.resolution is not None and self.check is not None:
            raise ValueError(
                f"check={self.check.name} is of bytes that pass through, and with a resolution every image is "
                "decoded: leave one of them out"
            )
        if self.quality is not None and self.format in (None, Format.png):
            raise ValueError(
                "quality is of prepared images in format=jpg or format=webp: give those, or leave it out"
            )
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be in [1, 100], got {self.quality}")

    def image(self, data: bytes) -> tuple[str, bytes]:
        """The extension and the bytes that an encoded image is packed under.

        Raises:
            UndecodableImage: no image in a format that is read, over the limits, or smaller than the resolution.
        """
        if self.resolution is None:
            self._look_at(data)
            return known_format(data), data
        image = open_image(data, channels=self.channels)
        if min(image.size) < self.resolution:
            raise UndecodableImage(
                f"the image has {image.width}x{image.height} pixels, smaller than resolution={self.resolution}"
            )
        square = resize_lanczos(center_crop_square(image), self.resolution)
        format = self.format or Format.png
        return format.name, encoded(square, format, self._quality())

    def choices(self) -> dict[str, Json]:
        """All that decides the images, as the manifest keeps it."""
        chosen: dict[str, Json] = {"resolution": self.resolution, "channels": self.channels}
        if self.resolution is None:
            chosen["check"] = self._check().name
        elif self.format not in (None, Format.png):
            assert self.format is not None
            chosen |= {"format": self.format.name, "quality": self._quality()}
        return chosen

    def _look_at(self, data: bytes) -> None:
        DEFAULT_LIMITS.check_bytes(len(data))
        if self._check() is Check.decode:
            open_image(data, channels=self.channels)
        elif self._check() is Check.header:
            known_format(data)  # which says what begins otherwise
            open_header(data)

    def _check(self) -> Check:
        return self.check or Check.decode

    def _quality(self) -> int | None:
        return JPEG_QUALITY if self.quality is None and self.format is Format.jpg else self.quality


PASSED_THROUGH = Preparation()


def known_format(data: bytes) -> str:
    """png, jpg or webp, by the first bytes. Raises UndecodableImage where it is none of them."""
    for extension, beginnings in _BEGINNINGS.items():
        if data.startswith(beginnings) and (extension != "webp" or data[8:12] == b"WEBP"):
            return extension
    raise UndecodableImage(f"neither a PNG, a JPEG nor a WebP: it begins with {data[:8].hex() or 'nothing'}")


def encoded(image: Image.Image, format: Format, quality: int | None) -> bytes:
    """The image in a format, of a JPEG's or a WebP's quality; without loss where there is none."""
    if format is Format.png:
        return encode_png(image)
    buffer = io.BytesIO()
    if format is Format.jpg:
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
    elif quality is None:
        image.save(buffer, "WEBP", lossless=True)
    else:
        image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()
