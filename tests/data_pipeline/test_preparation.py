"""Preparing images: formats, qualities and how closely bytes are looked at."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipeline.decode import UndecodableImage, open_header
from data_pipeline.preparation import Check, Format, Preparation, known_format
from tests.data_pipeline.conftest import encode

PICTURE = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)


@pytest.mark.parametrize(("name", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_bytes_pass_through_under_their_format(name: str, extension: str) -> None:
    data = encode(PICTURE, name)
    for check in Check:
        assert Preparation(check=check).image(data) == (extension, data)


def test_each_check_sees_what_it_says() -> None:
    whole = encode(PICTURE, "WEBP")
    jpeg = encode(PICTURE, "JPEG")
    flipped = bytearray(encode(PICTURE))
    flipped[-20] ^= 1  # in the checksum of the pixels
    refused = {
        "cut webp": (whole[:-9], {Check.decode, Check.header}),
        "cut jpeg": (jpeg[:-20], {Check.decode}),
        "flipped png": (bytes(flipped), {Check.decode}),
        "gif": (encode(PICTURE, "GIF"), {Check.decode, Check.header, Check.none}),
        "avi": (b"RIFF\0\0\0\0AVI ", {Check.decode, Check.header, Check.none}),
        "empty": (b"", {Check.decode, Check.header, Check.none}),
        "16 bits": (encode(np.zeros((9, 9), np.uint16)), {Check.decode, Check.header}),
        "only a beginning": (b"\x89PNG\r\n\x1a\n", {Check.decode, Check.header}),
    }
    for name, (data, checks) in refused.items():
        for check in Check:
            try:
                Preparation(check=check).image(data)
            except UndecodableImage:
                assert check in checks, name
            else:
                assert check not in checks, name


def test_a_jpeg_keeps_its_colours_at_full_resolution() -> None:
    board = np.zeros((16, 16, 3), np.uint8)
    board[:, ::2, 0] = 255  # columns of red and black: halved chroma would mix them
    preparation = Preparation(resolution=16, format=Format.jpg)
    pixels = np.asarray(Image.open(io.BytesIO(preparation.image(encode(board))[1])))
    assert np.abs(pixels.astype(int) - board).max() < 40
    lower = Preparation(resolution=16, format=Format.jpg, quality=30)
    assert len(lower.image(encode(board))[1]) < len(preparation.image(encode(board))[1])


def test_what_decides_the_images_is_in_the_choices() -> None:
    assert Preparation().choices() == {"resolution": None, "channels": 3, "check": "decode"}
    assert Preparation(resolution=4).choices() == {"resolution": 4, "channels": 3}  # as before there were formats
    assert Preparation(resolution=4, format=Format.png).choices() == Preparation(resolution=4).choices()
    assert Preparation(resolution=4, format=Format.jpg).choices() == {
        "resolution": 4,
        "channels": 3,
        "format": "jpg",
        "quality": 95,
    }
    assert Preparation(resolution=4, format=Format.webp).choices()["quality"] is None
    assert Preparation(check=Check.none).choices()["check"] == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0}, "resolution must be at least 1, got 0"),
        ({"channels": 4}, r"channels must be 1 \(gray\) or 3"),
        ({"format": Format.jpg}, "format=jpg needs a resolution"),
        ({"format": Format.png}, "format=png needs a resolution"),
        ({"resolution": 8, "check": Check.none}, "check=none is of bytes that pass through"),
        ({"quality": 90}, "quality is of prepared images in format=jpg or format=webp"),
        ({"quality": 90, "resolution": 8}, "quality is of prepared images in format=jpg or format=webp"),
        ({"quality": 101, "resolution": 8, "format": Format.jpg}, r"quality must be in \[1, 100\], got 101"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preparation(**options)


def test_a_small_image_is_refused() -> None:
    with pytest.raises(UndecodableImage, match="has 12x9 pixels, smaller than resolution=10"):
        Preparation(resolution=10).image(encode(PICTURE))


def test_formats_are_told_by_their_first_bytes() -> None:
    with pytest.raises(UndecodableImage, match="it begins with 7f454c46"):
        known_format(b"\x7fELF")
    with pytest.raises(UndecodableImage, match="cannot decode the image's header"):
        open_header(b"\xff\xd8\xff\xe0")
