"""Headers: sizes without decoding, against what Pillow reads, and nothing but None of other bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.headers import Header, png_header, webp_header


def encoded(width: int, height: int, format: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 3).save(buffer, format=format, **options)
    return buffer.getvalue()


@given(st.integers(1, 700), st.integers(1, 700))
def test_sizes_are_those_that_pillow_reads(width: int, height: int) -> None:
    assert png_header(encoded(width, height, "PNG")) == Header(width, height, plain=True)
    for options in ({"lossless": True, "method": 0}, {"lossless": False, "method": 0}):
        assert webp_header(encoded(width, height, "WEBP", **options)) == Header(width, height, plain=True)


def test_sizes_up_to_the_formats_own_limits() -> None:
    largest = (16_383, 1), (1, 16_383)
    for width, height in largest:
        for lossless in (False, True):
            assert webp_header(encoded(width, height, "WEBP", lossless=lossless)) == Header(width, height, True)
    assert png_header(encoded(70_000, 1, "PNG")) == Header(70_000, 1, True)


def test_an_extended_webp_has_the_size_of_its_canvas() -> None:
    data = encoded(300, 513, "WEBP", "RGBA", icc_profile=b"profile")
    assert data[12:16] == b"VP8X"
    assert webp_header(data) == Header(300, 513, plain=True)


def test_what_is_not_plain_is_told() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for format, header in (("PNG", png_header), ("WEBP", webp_header)):
        buffer = io.BytesIO()
        frames[0].save(buffer, format, save_all=True, append_images=frames[1:])
        assert header(buffer.getvalue()) == Header(5, 4, plain=False)
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(buffer, "PNG")
    assert png_header(buffer.getvalue()) == Header(5, 4, plain=False, gray=True)
    interlaced = bytearray(encoded(5, 4, "PNG"))
    interlaced[28] = 1
    assert png_header(bytes(interlaced)) == Header(5, 4, plain=False)


@pytest.mark.parametrize(("mode", "gray"), [("L", True), ("1", True), ("RGB", False), ("P", False), ("LA", False)])
def test_gray_has_no_colour_and_no_transparency(mode: str, gray: bool) -> None:
    assert png_header(encoded(5, 4, "PNG", mode)) == Header(5, 4, plain=True, gray=gray)
    if mode == "L":
        assert png_header(encoded(5, 4, "PNG", mode, transparency=3)) == Header(5, 4, plain=True, gray=False)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"RIFF\0\0\0\0WEBPVP8X" + data))
def test_other_bytes_have_no_header_and_raise_nothing(data: bytes) -> None:
    assert png_header(data) is None
    header = webp_header(data)
    assert header is None or data.startswith(b"RIFF")


@given(st.integers(0, 60))
def test_cut_headers_have_none_or_the_whole_ones(kept: int) -> None:
    for data, header in ((encoded(5, 4, "PNG"), png_header), (encoded(5, 4, "WEBP"), webp_header)):
        assert header(data[:kept]) in (None, header(data))
