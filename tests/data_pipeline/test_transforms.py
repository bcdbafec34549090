"""Crops, flips and the preparation of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from data_pipeline.order import augmentation_words
from data_pipeline.transforms import (
    Crop,
    center_crop_square,
    fit,
    mirror,
    random_crop,
    resize_lanczos,
    scaled_crop,
)


def grid(height: int, width: int) -> np.ndarray:
    """One channel whose pixels tell where they come from."""
    return (np.arange(height)[:, None] * 16 + np.arange(width)).astype(np.uint8)[None]


@given(st.integers(1, 40), st.integers(1, 40))
def test_center_crop_is_that_of_stylegans_tool(height: int, width: int) -> None:
    pixels = np.random.default_rng(height * 41 + width).integers(0, 256, (height, width), dtype=np.uint8)
    side = min(height, width)  # dataset_tool.py, center_crop
    expected = pixels[(height - side) // 2 : (height + side) // 2, (width - side) // 2 : (width + side) // 2]
    np.testing.assert_array_equal(np.asarray(center_crop_square(Image.fromarray(pixels))), expected)


def test_resizing_is_pillows_antialiased_lanczos() -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = np.asarray(resize_lanczos(Image.fromarray(board), 16))
    assert small.shape == (16, 16)
    assert np.abs(small.astype(int) - 127).max() <= 8  # without antialiasing it would alias to black or white


def test_random_crops_reach_every_place_equally() -> None:
    words = augmentation_words(0, np.arange(6000))[:, 1].tolist()
    corners = [int(random_crop(grid(6, 5), 4, word)[0, 0, 0]) for word in words]
    counts = [corners.count(top * 16 + left) for top in range(3) for left in range(2)]
    assert sum(counts) == 6000
    assert stats.chisquare(counts).pvalue > 1e-3


@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 6), st.integers(0, 2**64 - 1))
def test_a_random_crop_is_a_square_of_the_image(resolution: int, more: int, wider: int, word: int) -> None:
    image = grid(resolution + more, resolution + wider)
    crop = random_crop(image, resolution, word)
    top, left = divmod(int(crop[0, 0, 0]), 16)
    np.testing.assert_array_equal(crop, image[:, top : top + resolution, left : left + resolution])


@pytest.mark.parametrize("channels", [1, 3])
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_a_flip_mirrors_left_to_right_in_place(channels: int, height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, channels), dtype=np.uint8)
    batch = pixels.copy().transpose(0, 3, 1, 2)
    mirror(batch[1])
    np.testing.assert_array_equal(batch[1], pixels[1, :, ::-1].transpose(2, 0, 1))
    np.testing.assert_array_equal(batch[0], pixels[0].transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_scaled_crop_is_pillows_bicubic_resize_of_a_square(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, channels), dtype=np.uint8)
    words = [(2**64 - 1, 2**64 - 1), (0, 0), (3 << 60 | 5 << 28, 1 << 63)]
    for word, scale_word in words:
        side = 20 + (scale_word >> 32) * 17 // 2**32  # 20 … 36, which are 0.5 and 0.9 of 40
        top, left = (word >> 32) * (41 - side) // 2**32, (word % 2**32) * (51 - side) // 2**32
        square = Image.fromarray(image[top : top + side, left : left + side].squeeze())
        expected = np.asarray(square.resize((16, 16), Image.Resampling.BICUBIC)).reshape(16, 16, channels)
        cut = scaled_crop(image.transpose(2, 0, 1), 16, (0.5, 0.9), word, scale_word)
        np.testing.assert_array_equal(cut.transpose(1, 2, 0), expected)


def test_scaled_crops_have_every_side_equally_and_are_never_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    monkeypatch.setattr(
        "data_pipeline.transforms.resize_bicubic",
        lambda square, resolution: (sides.append(square.shape[1]), square[:, :resolution, :resolution])[1],
    )
    for word in augmentation_words(0, np.arange(3000))[:, 2].tolist():
        scaled_crop(grid(12, 14), 4, (0.4, 0.9), 0, word)  # 4.8 and 10.8
    assert set(sides) == set(range(5, 11))
    assert stats.chisquare(np.bincount(sides)[5:]).pvalue > 1e-3
    assert scaled_crop(grid(12, 14), 11, (0.1, 0.5), 0, 2**64 - 1).shape == (1, 11, 11)


def test_the_lsun_preparation_is_that_of_stylegans_tool() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (51, 76, 3), dtype=np.uint8)
    crop = min(pixels.shape[:2])  # dataset_tool.py, center_crop
    cut = pixels[
        (pixels.shape[0] - crop) // 2 : (pixels.shape[0] + crop) // 2,
        (pixels.shape[1] - crop) // 2 : (pixels.shape[1] + crop) // 2,
    ]
    expected = np.array(Image.fromarray(cut, "RGB").resize((16, 16), Image.Resampling.LANCZOS))
    ours = resize_lanczos(center_crop_square(Image.fromarray(pixels)), 16)
    np.testing.assert_array_equal(np.asarray(ours), expected)


def test_fit_follows_the_crop_policy() -> None:
    image = grid(8, 10)
    np.testing.assert_array_equal(fit(image, 4, Crop.center, 0), image[:, 2:6, 3:7])
    np.testing.assert_array_equal(fit(image, 4, Crop.random, 0), image[:, :4, :4])
    np.testing.assert_array_equal(fit(image, 4, Crop.random, 2**64 - 1), image[:, 4:, 6:])
    np.testing.assert_array_equal(fit(image[:, :, :8], 8, Crop.none, 0), image[:, :, :8])
    np.testing.assert_array_equal(
        fit(image, 4, Crop.scaled, 5, (0.5, 0.9), 6), scaled_crop(image, 4, (0.5, 0.9), 5, 6)
    )


@pytest.mark.parametrize("crop", Crop)
def test_a_small_image_is_refused_under_every_policy(crop: Crop) -> None:
    with pytest.raises(ValueError, match=r"has 10x8 pixels, smaller than data\.resolution=9: lower"):
        fit(grid(8, 10), 9, crop, 0)


def test_another_size_needs_a_crop_policy() -> None:
    with pytest.raises(ValueError, match=r"10x8 pixels, not data\.resolution=8: set data\.crop=center or"):
        fit(grid(8, 10), 8, Crop.none, 0)
