"""Fast decoders give the bits that Pillow gives, refuse what Pillow refuses, and look at the size first."""

from __future__ import annotations

import io
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from sklearn.datasets import load_sample_image

from data_pipeline.decode import DEFAULT_LIMITS, Limits, UndecodableImage
from data_pipeline.decoders import Decoder, decode_pixels, examine

SIZES = [(1, 1), (1, 9), (7, 5), (8, 8), (17, 16), (33, 48), (100, 65)]
NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 4), dtype=np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TURNED = Image.Exif()
TURNED[0x0112] = 6  # orientation: show it turned by 90 degrees


def encoded(pixels: np.ndarray | Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def images() -> list[np.ndarray]:
    """Noise, where every rounding shows, and photographs, where transforms are sparse."""
    rng, photograph = np.random.default_rng(1), load_sample_image("china.jpg")
    noise = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    return noise + [photograph[200 : 200 + height, 300 : 300 + width] for height, width in SIZES[4:]]


def assert_same(data: bytes) -> None:
    for channels in (1, 3):
        pillow, fast = (
            decode_pixels(data, channels, decoder=decoder) for decoder in (Decoder.pillow, Decoder.fast)
        )
        assert fast.dtype == np.uint8
        np.testing.assert_array_equal(fast, pillow)


def verdict(data: bytes, decoder: Decoder) -> np.ndarray | None:
    try:
        return decode_pixels(data, 3, decoder=decoder)
    except UndecodableImage:
        return None


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
def test_jpeg_has_pillows_bits(subsampling: str) -> None:
    for image in images():
        for quality in (30, 90, 100):
            pixels = np.ascontiguousarray(image[..., :1] if subsampling == "Gray" else image)
            space = "GRAY" if subsampling == "Gray" else "RGB"
            assert_same(simplejpeg.encode_jpeg(pixels, quality, space, subsampling))


@pytest.mark.parametrize("lossless", [False, True])
def test_webp_has_pillows_bits(lossless: bool) -> None:
    for image in images():
        for quality in (10, 90):
            assert_same(encoded(image, "WEBP", lossless=lossless, quality=quality, method=0))
            transparent = np.dstack([image, image[..., :1]])
            assert_same(encoded(transparent, "WEBP", lossless=lossless, quality=quality, method=0, exact=True))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_has_pillows_bits(mode: str) -> None:
    for image in images():
        for level in (0, 6):
            pixels = Image.fromarray(np.dstack([image, image[..., :1]])).convert(mode)
            assert_same(encoded(pixels, "PNG", compress_level=level))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunk(name: bytes, content: bytes, mode: str = "RGB") -> bytes:
    """A PNG with one more chunk after its header."""
    data = encoded(Image.fromarray(NOISE).convert(mode), "PNG")
    return data[:33] + chunk(name, content) + data[33:]


def deep_png() -> bytes:
    """16 bits of red, green and blue, of which Pillow keeps the upper 8."""
    rows = b"".join(b"\0" + (np.arange(18, dtype=">u2") * 3001).tobytes() for _ in range(5))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


RGB = NOISE[..., :3]
ODD = {
    "jpeg, turned": lambda: encoded(RGB, "JPEG", exif=TURNED),
    "jpeg, profile": lambda: encoded(RGB, "JPEG", icc_profile=PROFILE),
    "jpeg, progressive": lambda: encoded(RGB, "JPEG", progressive=True),
    "jpeg, restarts": lambda: encoded(RGB, "JPEG", restart_marker_blocks=2),
    "jpeg, red green blue": lambda: encoded(RGB, "JPEG", keep_rgb=True),
    "jpeg, cmyk": lambda: encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "jpeg, bytes after it": lambda: encoded(RGB, "JPEG") + b"more",
    "png, turned": lambda: encoded(RGB, "PNG", exif=TURNED),
    "png, profile": lambda: encoded(RGB, "PNG", icc_profile=PROFILE),
    "png, gamma": lambda: with_chunk(b"gAMA", struct.pack(">I", 100_000)),
    "png, primaries": lambda: with_chunk(b"cICP", bytes([9, 16, 0, 1])),
    "png, significant bits": lambda: with_chunk(b"sBIT", bytes([5, 6, 5])),
    "png, background": lambda: with_chunk(b"bKGD", bytes(6), "RGBA"),
    "png, a clear colour": lambda: with_chunk(b"tRNS", struct.pack(">3H", *NOISE[0, 0, :3].tolist())),
    "png, a clear gray": lambda: with_chunk(b"tRNS", struct.pack(">H", 200), "L"),
    "png, a clear index": lambda: encoded(Image.fromarray(RGB).convert("P"), "PNG", transparency=3),
    "png, 2 bits": lambda: encoded(Image.fromarray(RGB).quantize(4), "PNG", bits=2),
    "png, 16 bits": deep_png,
    "png, animated": lambda: encoded(RGB, "PNG", save_all=True, append_images=[Image.fromarray(255 - RGB)]),
    "webp, turned": lambda: encoded(RGB, "WEBP", exif=TURNED),
    "webp, profile": lambda: encoded(RGB, "WEBP", icc_profile=PROFILE),
    "webp, animated": lambda: encoded(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(255 - RGB)]),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_odd_images_have_pillows_bits(data: Callable[[], bytes]) -> None:
    assert_same(data())


def test_sixteen_bits_of_gray_are_refused_by_both() -> None:
    deep = encoded(np.full((4, 5), 40_000, np.uint16), "PNG")
    for decoder in Decoder:
        for channels in (1, 3):
            with pytest.raises(UndecodableImage, match="mode I;16, expected 8 bits per channel"):
                decode_pixels(deep, channels, decoder=decoder)


DAMAGED = {
    "jpeg": encoded(RGB, "JPEG"),
    "jpeg, progressive": encoded(RGB, "JPEG", progressive=True),
    "jpeg, restarts": encoded(RGB, "JPEG", restart_marker_blocks=2),
    "webp": encoded(RGB, "WEBP"),
    "webp, lossless": encoded(RGB, "WEBP", lossless=True),
    "webp, transparent": encoded(NOISE, "WEBP"),
    "png": encoded(RGB, "PNG"),
    "png, palette": encoded(Image.fromarray(RGB).convert("P"), "PNG"),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_cut_image_is_refused_wherever_it_is_cut(data: bytes) -> None:
    """But for Pillow, which takes an image that lacks no pixels: only checksums and an end marker."""
    assert verdict(data, Decoder.fast) is not None
    for kept in {*range(0, len(data), 37), *range(len(data) - 30, len(data))}:
        assert verdict(data[:kept], Decoder.fast) is None, kept
        assert verdict(data[:kept], Decoder.pillow) is None or len(data) - kept < 30, kept


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(sorted(DAMAGED)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_a_damaged_image_that_is_taken_is_what_pillow_makes_of_it(
    name: str, changes: list[tuple[float, int]]
) -> None:
    damaged = bytearray(DAMAGED[name])
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    fast = verdict(bytes(damaged), Decoder.fast)
    if fast is not None:
        pillow = verdict(bytes(damaged), Decoder.pillow)
        assert pillow is not None
        np.testing.assert_array_equal(fast, pillow)


def test_damage_inside_jpeg_data_is_noticed_by_the_fast_decoder() -> None:
    whole = encoded(RGB, "JPEG", quality=90)
    noticed = 0
    for place in range(len(whole) // 2, len(whole) - 2, 20):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        noticed += verdict(damaged, Decoder.fast) is None
    assert noticed > 10


def bomb(format: str) -> bytes:
    """A few bytes that say they are 60,000 pixels wide and high, or 16,383, the most that WebP can say."""
    if format == "png":
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    if format == "jpeg":
        data = bytearray(encoded(RGB, "JPEG"))
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", 60_000, 60_000)
        return bytes(data)
    data = bytearray(encoded(RGB, "WEBP"))
    data[26:30] = struct.pack("<HH", 16_383, 16_383)
    return bytes(data)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("decoder", Decoder)
def test_a_bomb_is_refused_before_it_is_decoded(
    format: str, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*arguments: object, **options: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("cv2.imdecode", explode)
    monkeypatch.setattr("simplejpeg.decode_jpeg", explode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", explode)
    with pytest.raises(UndecodableImage, match=r"60000x60000|16383x16383 pixels, and at most|decompression bomb"):
        decode_pixels(bomb(format), 3, decoder=decoder)
    with pytest.raises(UndecodableImage, match=r"has \d+ bytes, and at most 10 are decoded"):
        decode_pixels(bomb(format), 3, Limits(max_bytes=10), decoder)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"\x80\x04."]
)
def test_what_only_begins_as_an_image_is_refused(data: bytes) -> None:
    for decoder in Decoder:
        assert verdict(data, decoder) is None


def test_pixels_are_written_where_they_belong() -> None:
    room = np.zeros((2, 37, 53, 3), np.uint8)
    inner = room[1]
    decode = examine(encoded(RGB, "JPEG"), 3, DEFAULT_LIMITS, Decoder.fast)
    assert decode(inner) is inner
    np.testing.assert_array_equal(room[1], decode(None))
    assert not room[0].any()
    np.testing.assert_array_equal(decode(np.zeros((37, 52, 3), np.uint8)), room[1])


def runs_beside(work: Callable[[], object]) -> bool:
    """Whether this thread gets to run while another one does the work, where none is ever made to give way."""
    done = threading.Event()
    thread = threading.Thread(target=lambda: (work(), done.set()))
    thread.start()
    ran = not done.is_set()
    thread.join()
    return ran


def test_the_interpreters_lock_is_released_while_an_image_is_decoded() -> None:
    large = np.kron(RGB, np.ones((8, 8, 1), np.uint8))
    ways = [(encoded(large, format), decoder) for format in ("JPEG", "PNG", "WEBP") for decoder in Decoder]
    for data, decoder in ways:
        decode_pixels(data, 3, decoder=decoder)  # imports
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        for data, decoder in ways:
            assert any(runs_beside(partial(decode_pixels, data, 3, decoder=decoder)) for _ in range(10))
        assert not any(runs_beside(lambda: sum(range(100_000))) for _ in range(10))
    finally:
        sys.setswitchinterval(interval)
