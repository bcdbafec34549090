"""Bytes and the range that a model sees: there and back, with and without noise inside a byte."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from models.noise import Noise
from models.pixels import PixelRange, as_data, to_bytes, to_unit

BYTES = torch.arange(256).byte()
STANDARDISED = PixelRange(33.318, 78.567)
NCSN = PixelRange(-0.5, 256.0, dequantised=True)


def noise(count: int) -> Noise:
    return Noise(0, torch.arange(count))


def test_the_ends_of_the_bytes_are_the_ends_of_the_range():
    assert to_unit(BYTES)[[0, -1]].tolist() == [-1.0, 1.0]
    assert torch.allclose(to_unit(BYTES).diff(), torch.tensor(2 / 255), rtol=0, atol=1e-6)
    for pixels in (PixelRange.signed, PixelRange.unit, STANDARDISED):
        assert to_unit(BYTES, pixels)[[0, -1]].tolist() == pytest.approx([pixels.low, pixels.high])


@pytest.mark.parametrize("pixels", [PixelRange.signed, PixelRange.unit, STANDARDISED, NCSN])
def test_every_byte_survives_the_round_trip(pixels):
    assert torch.equal(to_bytes(to_unit(BYTES, pixels), pixels), BYTES)


def test_a_value_becomes_the_nearest_byte_and_what_lies_outside_is_clipped():
    nudged = to_unit(BYTES) + 0.49 * 2 / 255
    assert torch.equal(to_bytes(nudged), BYTES)
    assert to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_the_unit_range_is_torchvisions_to_tensor_and_comes_back():
    assert torch.equal(to_unit(BYTES, PixelRange.unit), BYTES.float().div(255))
    assert to_bytes(torch.tensor([-3.0, 3.0]), PixelRange.unit).tolist() == [0, 255]


def test_pixels_of_the_datas_mean_and_deviation_are_standardised():
    bytes_ = torch.randint(40, 90, (64, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    pixels = PixelRange(float(bytes_.double().mean()), float(bytes_.double().std(correction=0)))
    x = as_data(bytes_, pixels, noise(64)).double()
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.square().mean()) == pytest.approx(1, abs=1e-6)


def test_a_dequantised_pixel_is_uniform_over_the_interval_around_its_byte():
    pixels = PixelRange(10.0, 4.0, dequantised=True)
    bytes_ = torch.full((20, 1, 16, 16), 200, dtype=torch.uint8)
    within = as_data(bytes_, pixels, noise(20)).double().flatten() * 4 + 10 - 200
    assert stats.kstest(within.numpy(), "uniform", (-0.5, 1)).pvalue > 1e-4
    assert torch.equal(to_bytes(as_data(bytes_, pixels, noise(20)), pixels), bytes_)


def test_the_noise_inside_a_byte_is_a_samples_own():
    bytes_ = torch.zeros(6, 1, 2, 2, dtype=torch.uint8)
    whole = as_data(bytes_, NCSN, noise(6))
    assert torch.equal(as_data(bytes_[2:4], NCSN, noise(6)[slice(2, 4)]), whole[2:4])
    assert len(whole.unique()) == whole.numel()


def test_the_official_dequantisation_of_ncsn_covers_0_to_1_evenly():
    """(255 x + u) / 256 with x in [0, 1]: byte b on (b / 256, (b + 1) / 256]."""
    bytes_ = BYTES.reshape(256, 1, 1, 1)
    x = as_data(bytes_, NCSN, noise(256)).flatten()
    assert ((x * 256 - BYTES).abs() <= 1 + 1e-4).all()
    assert (x * 256 - BYTES >= -1e-4).all()
    assert (NCSN.low, NCSN.high) == (0.0, 1.0)


def test_floats_are_there_already():
    x = torch.randn(3, 1, 2, 2)
    assert as_data(x, NCSN, noise(3)) is x


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"pixels\.deviation must be positive, got 0"):
        PixelRange(0.0, 0.0)


def test_each_channel_comes_out_in_one_piece() -> None:
    """A stream puts the channels of a pixel side by side; nothing of that must be left in the floats."""
    apart = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    together = apart.contiguous(memory_format=torch.channels_last)
    for pixels in (PixelRange.signed, NCSN):
        ours, theirs = (as_data(x, pixels, noise(2)) for x in (together, apart))
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride() == (60, 20, 4, 1)
