"""The likelihood ledger: one likelihood in the units of every paper, so that their numbers stand in one table.

DPM (Sohl-Dickstein et al. 2015) reports log-likelihoods of standardised data in bits for each pixel or sequence,
larger is better, and their gain over the prior's. DDPM (Ho et al. 2020) reports negative log-likelihoods of pixels
0..255 in bits for each dimension, smaller is better. Between them lies the Jacobian of x = scale · pixel + offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

PIXELS = 1 / 127.5  # the scale of x = pixel / 127.5 - 1


class Unit(Enum):
    """What a likelihood may be stated in."""

    nats = "nats"  # ln p(x) of the whole datum
    bits = "bits"  # log2 p(x) of the whole datum: bits a sequence
    bits_per_pixel = "bits_per_pixel"  # log2 p(x), for each pixel with all of its channels
    bits_per_dim = "bits_per_dim"  # -log2 p(pixels), for each channel of each pixel


@dataclass(frozen=True)
class LogLikelihood:
    """The mean log-likelihood of data, or a bound on it.

    nats: ln p(x) of one datum, by what the model itself sees. dimensions: numbers in a datum; channels: of
    them in a pixel. scale: of x = scale · pixel + offset where p(x) is a density; 1 where it is a mass, as with
    the decoder over 256 bins, since a mass has no Jacobian.
    """

    nats: float
    dimensions: int
    channels: int = 1
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.dimensions < 1 or self.channels < 1 or self.dimensions % self.channels:
            raise ValueError(
                "dimensions must be a positive multiple of channels, "
                f"got {self.dimensions} dimensions in pixels of {self.channels}"
            )
        if self.scale == 0 or not math.isfinite(self.scale):
            raise ValueError(f"scale must be finite and not 0, got {self.scale}")

    @classmethod
    def of(cls, value: float, unit: Unit, dimensions: int, channels: int = 1, scale: float = 1.0) -> LogLikelihood:
        """A likelihood that is stated in any unit."""
        one_nat, none = (cls(nats, dimensions, channels, scale).stated_in(unit) for nats in (1.0, 0.0))
        return cls((value - none) / (one_nat - none), dimensions, channels, scale)

    def stated_in(self, unit: Unit) -> float:
        """The same likelihood in another unit."""
        bits = self.nats / math.log(2)
        pixels = self.dimensions / self.channels
        values = {
            Unit.nats: self.nats,
            Unit.bits: bits,
            Unit.bits_per_pixel: bits / pixels,
            Unit.bits_per_dim: -bits / self.dimensions - math.log2(abs(self.scale)),
        }
        return values[unit]

    def gain(self, null_nats: float) -> float:
        """K - L_null in bits: what was learned beyond the prior (Sohl-Dickstein et al. 2015, Table 1)."""
        return (self.nats - null_nats) / math.log(2)

    def row(self, null_nats: float) -> dict[str, float]:
        """Every unit, by its name, and the gain in bits."""
        return {**{unit.value: self.stated_in(unit) for unit in Unit}, "gain_bits": self.gain(null_nats)}


def null_gaussian(dimensions: int, second_moment: float = 1.0) -> float:
    """L_null in nats: the mean of ln N(x; 0, I) over data with this second moment in each dimension."""
    return -dimensions / 2 * (math.log(2 * math.pi) + second_moment)


def null_bernoulli(dimensions: int, rate: float) -> float:
    """L_null in nats: the mean log-likelihood of bits that are 1 at this rate under their own rate."""
    if not 0 < rate < 1:
        raise ValueError(f"rate must lie in (0, 1), got {rate}")
    return dimensions * (rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
