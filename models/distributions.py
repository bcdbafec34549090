"""Probability laws as small values: what a process or a network says about x."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian law N(mean, std²). Either may be any shape that broadcasts against x; std may be 0."""

    mean: Float[Tensor, "..."]
    std: Float[Tensor, "..."]

    def sample(self, noise: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """mean + std · noise, for standard normal `noise`."""
        return self.mean + self.std * noise

    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """ln N(x; mean, std²) of each element, in nats."""
        return -0.5 * ((x - self.mean) / self.std) ** 2 - torch.log(self.std) - 0.5 * math.log(2 * math.pi)

    def kl(self, other: Gaussian) -> Float[Tensor, "..."]:
        """KL(self ‖ other) of each element, in nats."""
        ratio = (self.std / other.std) ** 2
        distance = ((self.mean - other.mean) / other.std) ** 2
        return 0.5 * (ratio + distance - 1 - torch.log(ratio))
