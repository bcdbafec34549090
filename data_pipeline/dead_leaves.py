"""Dead leaves: disks of power-law radii that occlude each other (Lee, Mumford & Huang 2001; DPM 2015, Fig. 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from data_pipeline.order import Purpose, random_words
from data_pipeline.synthetic import Samples, SyntheticConfig, unit_interval

LEAVES = 256  # drawn at a time for each image, until every pixel is covered; any number gives the same images


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
        images = np.full((count, self.size**2), np.nan, np.float32)
        bare, drawn = np.arange(count), 0
        while len(bare):
            words = [
                random_words(seed, Purpose.SYNTHESIS, ((start + int(image)) << 64) + drawn, 4 * LEAVES)
                for image in bare
            ]
            self.lay(images, np.repeat(bare, LEAVES), unit_interval(np.concatenate(words).reshape(-1, 4)))
            drawn += LEAVES
            bare = bare[np.isnan(images[bare]).any(axis=1)]
        return images.reshape(count, 1, self.size, self.size)

    def lay(
        self,
        images: Float[np.ndarray, "count pixels"],
        image: Int64[np.ndarray, " leaves"],
        shares: Float[np.ndarray, "leaves 4"],
    ) -> None:
        """Lays leaves under those that are there, from the front to the back; `image` names the image of each."""
        # Centres lie wherever a leaf can reach the image, so that no pixel is special.
        x, y = (self.size + 2 * self.largest) * shares[:, :2].T - self.largest
        radius, gray = self.radius(shares[:, 2]), math.sqrt(12) * (shares[:, 3] - 0.5)
        # The pixels in the square around each leaf, one after the other; pixel i has its middle at i + 1/2.
        (left, wide), (top, high) = (self.reach(middle, radius) for middle in (x, y))
        area = wide * high
        leaf = np.repeat(np.arange(len(area)), area)
        place = np.arange(len(leaf)) - np.repeat(np.cumsum(area) - area, area)
        row, column = top[leaf] + place // wide[leaf], left[leaf] + place % wide[leaf]
        inside = (row + 0.5 - y[leaf]) ** 2 + (column + 0.5 - x[leaf]) ** 2 <= radius[leaf] ** 2
        where = image[leaf], row * self.size + column
        seen = np.flatnonzero(inside & np.isnan(images[where]))
        # Of several values for one place numpy keeps the last: so from the back to the front.
        hidden_first = seen[::-1]
        images[where[0][hidden_first], where[1][hidden_first]] = gray[leaf[hidden_first]]

    def reach(
        self, middle: Float[np.ndarray, " leaves"], radius: Float[np.ndarray, " leaves"]
    ) -> tuple[Int64[np.ndarray, " leaves"], Int64[np.ndarray, " leaves"]]:
        """The first of the image's rows or columns that each leaf spans, and how many there are."""
        first = np.ceil(middle - radius - 0.5).clip(0, self.size).astype(np.int64)
        last = np.floor(middle + radius - 0.5).clip(-1, self.size - 1).astype(np.int64)
        return first, (last - first + 1).clip(0)

    def radius(self, share: Float[np.ndarray, " leaves"]) -> Float[np.ndarray, " leaves"]:
        """The radius below which a leaf's lies with probability `share`."""
        small, large = self.smallest**-2, self.largest**-2
        radius: np.ndarray = (small - share * (small - large)) ** -0.5
        return radius
