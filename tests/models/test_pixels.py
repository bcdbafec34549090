"""Bytes and [-1, 1]: there and back."""

from __future__ import annotations

import torch

from models.pixels import PixelRange, to_bytes, to_unit

BYTES = torch.arange(256).byte()


def test_the_ends_of_the_bytes_are_the_ends_of_the_range():
    assert to_unit(BYTES)[[0, -1]].tolist() == [-1.0, 1.0]
    assert torch.allclose(to_unit(BYTES).diff(), torch.tensor(2 / 255), rtol=0, atol=1e-6)


def test_every_byte_survives_the_round_trip():
    assert torch.equal(to_bytes(to_unit(BYTES)), BYTES)


def test_a_value_becomes_the_nearest_byte_and_what_lies_outside_is_clipped():
    nudged = to_unit(BYTES) + 0.49 * 2 / 255
    assert torch.equal(to_bytes(nudged), BYTES)
    assert to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_the_unit_range_is_torchvisions_to_tensor_and_comes_back():
    assert torch.equal(to_unit(BYTES, PixelRange.unit), BYTES.float().div(255))
    assert torch.equal(to_bytes(to_unit(BYTES, PixelRange.unit), PixelRange.unit), BYTES)
    assert to_bytes(torch.tensor([-3.0, 3.0]), PixelRange.unit).tolist() == [0, 255]
