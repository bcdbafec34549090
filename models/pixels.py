"""Between the bytes of an image and the range that a model sees."""

from __future__ import annotations

from enum import Enum

from jaxtyping import Float, UInt8
from torch import Tensor


class PixelRange(Enum):
    """Where a model's pixels lie. The names are what a config says."""

    signed = "signed"  # [-1, 1] (Ho et al. 2020, section 3.3)
    unit = "unit"  # [0, 1] (Song & Ermon 2019, section 5)

    @property
    def low(self) -> float:
        """Black; white is 1."""
        return -1.0 if self is PixelRange.signed else 0.0

    @property
    def step(self) -> float:
        """How many bytes a unit of the range holds."""
        return 255 / (1 - self.low)


def as_data(
    x: UInt8[Tensor, "..."] | Float[Tensor, "..."], into: PixelRange = PixelRange.signed
) -> Float[Tensor, "..."]:
    """A batch in the model's range: bytes are pixels, floats are there already."""
    return x if x.is_floating_point() else to_unit(x, into)


def to_unit(pixels: UInt8[Tensor, "..."], into: PixelRange = PixelRange.signed) -> Float[Tensor, "..."]:
    """0 .. 255 to the model's range in float32."""
    return pixels.float() / into.step + into.low


def to_bytes(x: Float[Tensor, "..."], out_of: PixelRange = PixelRange.signed) -> UInt8[Tensor, "..."]:
    """The model's range to the nearest of 0 .. 255; what lies outside is clipped."""
    return ((x.float() - out_of.low) * out_of.step).round().clamp(0, 255).byte()
