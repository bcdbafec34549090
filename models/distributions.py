"""Probability laws as small values: what a process or a network says about x."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.noise import Noise, Purpose


class Law(ABC):
    """A law of independent elements, in nats. What every reverse step, process and prior is made of."""

    @abstractmethod
    def draw(self, noise: Noise, purpose: Purpose, shape: Sequence[int], step: int = 0) -> Float[Tensor, "..."]:
        """A sample for each index of the noise; `shape` is of one sample."""

    @property
    @abstractmethod
    def mode(self) -> Float[Tensor, "..."]:
        """The most probable value: a draw without noise."""

    @abstractmethod
    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """ln p(x) of each element."""

    @abstractmethod
    def kl(self, other: Any) -> Float[Tensor, "..."]:
        """KL(self ‖ other) of each element, for another law of the same kind."""

    @abstractmethod
    def entropy(self) -> Float[Tensor, "..."]:
        """The (differential) entropy of each element."""


@dataclass(frozen=True)
class Gaussian(Law):
    """A diagonal Gaussian law N(mean, std²). Either may be any shape that broadcasts against x; std may be 0."""

    mean: Float[Tensor, "..."]
    std: Float[Tensor, "..."]

    def sample(self, noise: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """mean + std · noise, for standard normal `noise`."""
        return self.mean + self.std * noise

    def draw(self, noise: Noise, purpose: Purpose, shape: Sequence[int], step: int = 0) -> Float[Tensor, "..."]:
        return self.sample(noise.normal(purpose, shape, step))

    @property
    def mode(self) -> Float[Tensor, "..."]:
        return self.mean

    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """ln N(x; mean, std²) of each element, in nats."""
        return -0.5 * ((x - self.mean) / self.std) ** 2 - torch.log(self.std) - 0.5 * math.log(2 * math.pi)

    def kl(self, other: Gaussian) -> Float[Tensor, "..."]:
        """KL(self ‖ other) of each element, in nats."""
        ratio = (self.std / other.std) ** 2
        distance = ((self.mean - other.mean) / other.std) ** 2
        return 0.5 * (ratio + distance - 1 - torch.log(ratio))

    def entropy(self) -> Float[Tensor, "..."]:
        """½ ln(2πe std²) of each element, in nats."""
        return torch.log(self.std).expand_as(self.mean + self.std) + 0.5 * math.log(2 * math.pi * math.e)


@dataclass(frozen=True)
class Bernoulli(Law):
    """Each element is 1 with its `probability`, else 0. The probability may be 0 or 1."""

    probability: Float[Tensor, "..."]

    def sample(self, noise: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """1 where uniform `noise` in (0, 1] is at most the probability, to the noise's resolution."""
        return (noise <= self.probability).to(self.probability.dtype)

    def draw(self, noise: Noise, purpose: Purpose, shape: Sequence[int], step: int = 0) -> Float[Tensor, "..."]:
        return self.sample(noise.uniform(purpose, shape, step))

    @property
    def mode(self) -> Float[Tensor, "..."]:
        return (self.probability > 0.5).to(self.probability.dtype)

    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """x ln p + (1 - x) ln(1 - p) of each element, in nats; what is impossible has -inf."""
        of_zero: Tensor = torch.special.xlog1py(1 - x, -self.probability)
        return torch.xlogy(x, self.probability) + of_zero

    def kl(self, other: Bernoulli) -> Float[Tensor, "..."]:
        """KL(self ‖ other) of each element, in nats."""
        return -self.entropy() - other.log_prob(self.probability)

    def entropy(self) -> Float[Tensor, "..."]:
        """-p ln p - (1 - p) ln(1 - p) of each element, in nats."""
        return -self.log_prob(self.probability)
