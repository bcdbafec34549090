"""Pictures of samples of any kind: where each one lies, by hand."""

from __future__ import annotations

import torch

from models.pixels import PixelRange, to_bytes
from trainer.grid import grid
from trainer.picture import CELL, SIDE, picture


def as_points(*points: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(points)[:, :, None, None]


def dots(of: torch.Tensor) -> set[tuple[int, int]]:
    """(row, column) of what is black."""
    return {tuple(place) for place in (of[0] == 0).nonzero().tolist()}


def test_images_are_the_grid_of_their_bytes():
    x = torch.linspace(-2, 2, 5 * 3 * 4 * 4).reshape(5, 3, 4, 4)
    pixels = PixelRange(100.0, 70.0)
    assert torch.equal(picture(x, pixels), grid(to_bytes(x, pixels)))


def test_points_lie_where_they_are_on_a_plane_of_three_deviations():
    end = SIDE - 1
    drawn = picture(as_points((-3, 3), (3, -3), (3, 3), (1, -3)), PixelRange.signed)
    assert drawn.shape == (3, SIDE, SIDE)
    assert dots(drawn) == {(0, 0), (end, end), (0, end), (end, 2 * end // 3)}
    assert (drawn == 200).any()


def test_the_plane_grows_to_hold_the_points_and_drops_what_is_not_finite():
    far = picture(as_points((-12, 12), (0, 12), (float("nan"), 0)), PixelRange.signed)
    assert (0, 0) in dots(far)
    assert len(dots(far)) == 2
    assert not dots(picture(as_points((float("inf"), 0)), PixelRange.signed))


def test_vectors_are_rows_of_cells():
    x = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])[:, :, None, None]
    drawn = picture(x, PixelRange.unit)[0, 1:-1, 1:-1]
    assert drawn.shape == (2 * CELL, 3 * CELL)
    middles = drawn[CELL // 2 :: CELL, CELL // 2 :: CELL]
    assert middles.tolist() == [[0, 255, 0], [255, 255, 0]]
