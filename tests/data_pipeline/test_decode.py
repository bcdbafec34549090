"""Decoding: known formats only, within limits, and every damage is an UndecodableImage."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.decode import (
    Limits,
    UndecodableImage,
    caption_in_json,
    decode_image,
    decode_json,
    decode_label,
    label_in_json,
)

COLOUR = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)


def encoded(format: str, image: np.ndarray = COLOUR, **options: bool) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(100))
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, pixels, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_lossless_formats_come_back_exactly() -> None:
    for data in (encoded("PNG"), encoded("WEBP", lossless=True)):
        np.testing.assert_array_equal(decode_image(data, channels=3), COLOUR.transpose(2, 0, 1))
    gray = decode_image(encoded("PNG", COLOUR[..., 0]), channels=1)
    np.testing.assert_array_equal(gray, COLOUR[None, ..., 0])


def test_jpeg_is_what_pillow_makes_of_it() -> None:
    data = encoded("JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(data, channels=3), expected)


def test_channels_are_converted() -> None:
    gray = decode_image(encoded("PNG", COLOUR[..., 0]), channels=3)
    np.testing.assert_array_equal(gray, np.stack([COLOUR[..., 0]] * 3))
    luma = decode_image(encoded("PNG"), channels=1)
    np.testing.assert_array_equal(luma[0], np.asarray(Image.fromarray(COLOUR).convert("L")))
    alpha = np.dstack([COLOUR, np.zeros((12, 9), np.uint8)])
    np.testing.assert_array_equal(decode_image(encoded("PNG", alpha), channels=3), COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no bytes"),
        (b"not an image", "cannot decode"),
        (encoded("PNG")[:60], "cannot decode"),
        (encoded("JPEG")[:300], "cannot decode"),
        (encoded("WEBP")[:60], "cannot decode"),
        (encoded("GIF"), "cannot decode"),
        (encoded("TIFF"), "cannot decode"),
        (pickle.dumps(COLOUR), "cannot decode"),
        (encoded("PNG", np.full((4, 4), 40_000, np.uint16)), "mode I;16, expected 8 bits"),
        (png_header(60_000, 60_000), "60000x60000|decompression bomb"),
        (png_header(9_000, 8_000), "9000x8000 pixels, and at most 64000000"),
    ],
)
def test_what_is_not_a_usable_image_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UndecodableImage, match=message):
        decode_image(data, channels=3)


def test_limits_are_inclusive() -> None:
    data = encoded("PNG")
    decode_image(data, channels=3, limits=Limits(max_bytes=len(data), max_pixels=108))
    with pytest.raises(UndecodableImage, match="12 pixels, and at most 107"):
        decode_image(data, channels=3, limits=Limits(max_pixels=107))
    with pytest.raises(UndecodableImage, match=f"has {len(data)} bytes, and at most"):
        decode_image(data, channels=3, limits=Limits(max_bytes=len(data) - 1))


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([encoded("PNG"), encoded("JPEG"), encoded("WEBP")]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0.05, 1),
)
def test_damage_gives_an_image_or_a_clear_error(
    data: bytes, changes: list[tuple[float, int]], kept: float
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(data))] = value
    try:
        image = decode_image(bytes(damaged[: int(kept * len(data))]), channels=3)
    except UndecodableImage:
        return
    assert image.shape[0] == 3
    assert image.dtype == np.uint8


def test_labels_are_ascii_integers(encode: Callable[..., bytes]) -> None:
    assert decode_label(b"17") == 17
    assert decode_label(b" 3\n") == 3
    for data in (b"", b"-1", b"1.0", b"1_0", "٣".encode(), b"9" * 19, pickle.dumps(3)):
        with pytest.raises(ValueError, match="non-negative integer in ASCII digits"):
            decode_label(data)


def test_json_members_are_objects() -> None:
    assert decode_json(b'{"caption": "a cat"}') == {"caption": "a cat"}
    with pytest.raises(ValueError, match="must hold an object, got list"):
        decode_json(b"[1]")
    with pytest.raises(ValueError, match="Expecting value"):
        decode_json(b"nothing")


def test_a_json_member_names_a_class() -> None:
    assert label_in_json(b'{"label": 7, "caption": "a cat"}') == 7
    assert label_in_json(b'{"cls": 0, "label": 7}') == 0
    for data in (b"{}", b'{"cls": -1}', b'{"cls": true}', b'{"cls": 1.0}', b'{"label": "cat"}'):
        with pytest.raises(ValueError, match="expected a non-negative integer under cls or label, got"):
            label_in_json(data)


def test_a_json_member_holds_a_caption() -> None:
    assert caption_in_json('{"caption": "eine Kätzin"}'.encode()) == "eine Kätzin"
    for data in (b"{}", b'{"caption": null}', b'{"caption": ["a cat"]}'):
        with pytest.raises(ValueError, match="expected text under caption, got"):
            caption_in_json(data)
    for data in (b"\xff", b'{"caption": "cut', b"[" * 100_000):
        with pytest.raises(ValueError):
            caption_in_json(data)
