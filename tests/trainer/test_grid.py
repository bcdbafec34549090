"""Grids: every image is there, in order, magnified whole."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from trainer.grid import grid, write_png


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (5, 3, 2), (16, 4, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_side_by_side_in_order(count, columns, rows, channels):
    images = torch.randint(256, (count, channels, 8, 8), dtype=torch.uint8)
    picture = grid(images, gap=1, least=32)  # 8 pixels, magnified four times
    assert picture.shape == (3, 33 * rows + 1, 33 * columns + 1)
    for number, image in enumerate(images):
        top, left = 33 * (number // columns) + 1, 33 * (number % columns) + 1
        cell = picture[:, top : top + 32, left : left + 32]
        assert torch.equal(cell[:, ::4, ::4], image.expand(3, 8, 8))
        assert torch.equal(cell[:, 3::4, 3::4], image.expand(3, 8, 8))


def test_each_class_of_a_cycle_has_a_row():
    images = torch.arange(7, dtype=torch.uint8).reshape(7, 1, 1, 1).expand(7, 1, 32, 32)
    cells = grid(images, gap=0, rows=3)[0, ::32, ::32]
    assert cells.tolist() == [[0, 3, 6], [1, 4, 255], [2, 5, 255]]
    assert torch.equal(grid(images, rows=4), grid(images)), "rows of one image make no picture"
    assert torch.equal(grid(images, rows=1), grid(images))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_written_picture_reads_back_the_same(tmp_path, channels):
    image = torch.randint(256, (channels, 5, 7), dtype=torch.uint8)
    path = tmp_path / "made" / "on the way" / "picture.png"
    write_png(path, image)
    with Image.open(path) as opened:
        pixels = torch.tensor(list(opened.tobytes()), dtype=torch.uint8).reshape(5, 7, channels)
        assert opened.mode == {1: "L", 3: "RGB"}[channels]
    assert torch.equal(pixels.permute(2, 0, 1), image)
