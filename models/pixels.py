"""Between the bytes of an image and the range that a model sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.noise import Noise, Purpose


@dataclass
class PixelRange:
    """Where a model's pixels lie: x = (pixel - mean) / deviation.

    mean, deviation: in bytes. Those of the data standardise it, as the bound K of 2015 needs it to be.
    dequantised: pixels are spread evenly over the unit interval around their byte, by noise of each sample's own.
        Bytes have no density: one that learns their 256 values grows without end, which is why Sohl-Dickstein et
        al. 2015 withdrew their first figure for CIFAR-10.
    """

    mean: float = 127.5
    deviation: float = 127.5
    dequantised: bool = False

    signed: ClassVar[PixelRange]  # [-1, 1] (Ho et al. 2020, section 3.3)
    unit: ClassVar[PixelRange]  # [0, 1] (Song & Ermon 2019, section 5)

    def __post_init__(self) -> None:
        if self.deviation <= 0:
            raise ValueError(f"pixels.deviation must be positive, got {self.deviation}")

    @property
    def low(self) -> float:
        """Black: the least that a pixel can be."""
        return (-0.5 * self.dequantised - self.mean) / self.deviation

    @property
    def high(self) -> float:
        """White: the most that a pixel can be."""
        return (255 + 0.5 * self.dequantised - self.mean) / self.deviation


PixelRange.signed = PixelRange()
PixelRange.unit = PixelRange(mean=0.0, deviation=255.0)


def as_data(
    x: UInt8[Tensor, "B ..."] | Float[Tensor, "B ..."], into: PixelRange, noise: Noise
) -> Float[Tensor, "B ..."]:
    """A batch in the model's range: bytes are pixels, floats are there already."""
    if x.is_floating_point():
        return x
    if into.dequantised:
        x = x + (noise.uniform(Purpose.DEQUANTIZE, x.shape[1:]) - 0.5)
    return to_unit(x, into)


def to_unit(
    pixels: UInt8[Tensor, "..."] | Float[Tensor, "..."], into: PixelRange = PixelRange.signed
) -> Float[Tensor, "..."]:
    """0 .. 255 to the model's range in float32, with each channel in one piece.

    A data stream puts the channels of a pixel side by side. Left so, convolutions would choose other kernels.
    """
    return (
        pixels.to(torch.float32, memory_format=torch.contiguous_format) / into.deviation
        - into.mean / into.deviation
    )


def to_bytes(x: Float[Tensor, "..."], out_of: PixelRange = PixelRange.signed) -> UInt8[Tensor, "..."]:
    """The model's range to the nearest of 0 .. 255; what lies outside is clipped."""
    return ((x.float() + out_of.mean / out_of.deviation) * out_of.deviation).round().clamp(0, 255).byte()
