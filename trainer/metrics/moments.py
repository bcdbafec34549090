"""The mean and the covariance of features, streamed in double precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass
class Moments:
    """Sums over features [N, D]: enough for the mean and the covariance, and they add across batches and ranks."""

    count: int
    total: Float64[Tensor, " D"]
    outer: Float64[Tensor, "D D"]

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> Moments:
        """The moments of one batch of features."""
        double = features.double()
        return cls(len(double), double.sum(0), double.T @ double)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    @property
    def mean(self) -> Float64[Tensor, " D"]:
        """The sample mean."""
        return self.total / self.count

    @property
    def covariance(self) -> Float64[Tensor, "D D"]:
        """The unbiased sample covariance. Raises ValueError for fewer than two samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        centered = self.outer - torch.outer(self.mean, self.total)
        return centered / (self.count - 1)
