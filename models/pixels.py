"""Between the bytes of an image and the range [-1, 1] that models see."""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor


def as_data(x: UInt8[Tensor, "..."] | Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A batch in the range that models see: bytes are pixels, floats are there already."""
    return x if x.is_floating_point() else to_unit(x)


def to_unit(pixels: UInt8[Tensor, "..."]) -> Float[Tensor, "..."]:
    """0 .. 255 to [-1, 1] in float32 (Ho et al. 2020, section 3.3)."""
    return pixels.float() / 127.5 - 1


def to_bytes(x: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """[-1, 1] to the nearest of 0 .. 255; what lies outside is clipped."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).byte()
