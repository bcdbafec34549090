"""Dead leaves: disks of power-law radii that occlude each other (Lee, Mumford & Huang 2001; DPM 2015, Fig. 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from data_pipeline.order import Purpose, random_words
from data_pipeline.synthetic import Samples, SyntheticConfig, unit_interval

LEAVES = 256  # drawn at a time, until every pixel is covered


@dataclass
class DeadLeaves(SyntheticConfig):
    """Gray images of disks whose radii have the density ∝ r^-3 on [smallest, largest], in pixels.

    The gray of a leaf is uniform with mean 0 and variance 1, and every pixel is covered: so is each pixel's.
    """

    size: int = 32
    smallest: float = 1.0
    largest: float = 32.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ValueError(f"data.size must be at least 1, got {self.size}")
        if not 0 < self.smallest < self.largest:
            raise ValueError(
                f"data.smallest must be positive and below data.largest, got {self.smallest} and {self.largest}"
            )

    @property
    def channels(self) -> int:
        return 1

    @property
    def resolution(self) -> int:
        return self.size

    def samples(self, seed: int, start: int, count: int) -> Samples:
        return np.stack([self.image(seed, position) for position in range(start, start + count)])[:, None]

    def image(self, seed: int, position: int) -> np.ndarray:
        """One image, from the front leaf to the back: a pixel keeps the first gray that covers it."""
        image = np.full((self.size, self.size), np.nan, np.float32)
        grid, drawn = np.arange(self.size) + 0.5, 0
        while np.isnan(image).any():
            words = random_words(seed, Purpose.SYNTHESIS, (position << 64) + drawn * LEAVES, 4 * LEAVES)
            drawn += 1
            for u_x, u_y, u_radius, u_gray in unit_interval(words.reshape(LEAVES, 4)):
                # Centres lie wherever a leaf can reach the image, so that no pixel is special.
                span = self.size + 2 * self.largest
                x, y = span * u_x - self.largest, span * u_y - self.largest
                inside = (grid[:, None] - y) ** 2 + (grid - x) ** 2 <= self.radius(u_radius) ** 2
                image[inside & np.isnan(image)] = math.sqrt(12) * (u_gray - 0.5)
        return image

    def radius(self, share: float) -> float:
        """The radius below which a leaf's lies with probability `share`."""
        small, large = self.smallest**-2, self.largest**-2
        return float((small - share * (small - large)) ** -0.5)
