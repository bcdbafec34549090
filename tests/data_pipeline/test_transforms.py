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
    horizontal_flip,
    random_crop,
    resize_lanczos,
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


def test_a_flip_mirrors_left_to_right() -> None:
    np.testing.assert_array_equal(horizontal_flip(grid(2, 3), 1)[0], [[2, 1, 0], [18, 17, 16]])
    np.testing.assert_array_equal(horizontal_flip(grid(2, 3), 0), grid(2, 3))


def test_fit_follows_the_crop_policy() -> None:
    image = grid(8, 10)
    np.testing.assert_array_equal(fit(image, 4, Crop.center, 0), image[:, 2:6, 3:7])
    np.testing.assert_array_equal(fit(image, 4, Crop.random, 0), image[:, :4, :4])
    np.testing.assert_array_equal(fit(image, 4, Crop.random, 2**64 - 1), image[:, 4:, 6:])
    np.testing.assert_array_equal(fit(image[:, :, :8], 8, Crop.none, 0), image[:, :, :8])


@pytest.mark.parametrize("crop", Crop)
def test_a_small_image_is_refused_under_every_policy(crop: Crop) -> None:
    with pytest.raises(ValueError, match=r"has 10x8 pixels, smaller than data\.resolution=9: lower"):
        fit(grid(8, 10), 9, crop, 0)


def test_another_size_needs_a_crop_policy() -> None:
    with pytest.raises(ValueError, match=r"10x8 pixels, not data\.resolution=8: set data\.crop=center or"):
        fit(grid(8, 10), 8, Crop.none, 0)
