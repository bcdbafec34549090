"""Probability laws as small values: what a process or a network says about x."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.noise import Noise, Purpose

HALF_BIN = 1 / 255  # half the distance between two values of a pixel in [-1, 1]
ROOT_2 = math.sqrt(2)


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

    def cross_entropy(self, other: Any) -> Float[Tensor, "..."]:
        """-E ln other(x) under this law, of each element."""
        return self.entropy() + self.kl(other)


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
        log_ratio = 2 * (torch.log(self.std) - torch.log(other.std))
        distance = ((self.mean - other.mean) / other.std) ** 2
        # Not ratio - 1 - log(ratio): of nearly equal variances, as late steps have, that leaves rounding alone.
        return 0.5 * (torch.expm1(log_ratio) - log_ratio + distance)

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


class Cdf(Enum):
    """What stands for the normal distribution function, where paper and official code differ."""

    exact = "exact"
    tanh = "tanh"  # ½ + ½ tanh(√(2/π) (z + 0.044715 z³)), the official code: up to 5 nats off in the tails


@dataclass(frozen=True)
class Categorical(Law):
    """Each element is one of 0 .. K - 1, with the probabilities in a last axis of its own: they sum to 1."""

    probability: Float[Tensor, "... K"]

    def sample(self, noise: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """By uniform `noise` in (0, 1]: the first value up to which the probabilities sum to it at least."""
        below = self.probability.cumsum(-1) < noise[..., None]
        # What rounding leaves of 1 above the last sum falls to the last value that is possible.
        last = (self.probability > 0).to(torch.int64).cumsum(-1).argmax(-1)
        return torch.minimum(below.sum(-1), last).to(self.probability.dtype)

    def draw(self, noise: Noise, purpose: Purpose, shape: Sequence[int], step: int = 0) -> Float[Tensor, "..."]:
        return self.sample(noise.uniform(purpose, shape, step))

    @property
    def mode(self) -> Float[Tensor, "..."]:
        return self.probability.argmax(-1).to(self.probability.dtype)

    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """ln p(x) of each element, in nats; what is impossible has -inf."""
        return self.probability.gather(-1, x.long()[..., None])[..., 0].log()

    def kl(self, other: Categorical) -> Float[Tensor, "..."]:
        """KL(self ‖ other) of each element, in nats."""
        return -self.entropy() - torch.xlogy(self.probability, other.probability).sum(-1)

    def entropy(self) -> Float[Tensor, "..."]:
        """-Σ p ln p of each element, in nats."""
        return -torch.xlogy(self.probability, self.probability).sum(-1)


@dataclass(frozen=True)
class DiscretizedGaussian:
    """N(mean, std²) over the 256 values of a pixel in [-1, 1]: the mass of its bin (Ho et al. 2020, Eq. 13).

    The bins of -1 and 1 are open outwards, so the masses sum to 1. std must be positive.
    floor: the least probability of a value. 0 is exact, however far the mean lies; the official code has 1e-12.
    """

    mean: Float[Tensor, "..."]
    std: Float[Tensor, "..."]
    floor: float = 0.0
    cdf: Cdf = Cdf.exact

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor must lie in [0, 1), got {self.floor}")
        if self.cdf is Cdf.tanh and not self.floor:
            raise ValueError(
                "cdf=tanh gives masses of 0 in the tails: it needs a floor, 1e-12 in the official code"
            )

    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """ln P(x) of each element, in nats; x must be pixel values in [-1, 1]."""
        center, half = (x - self.mean) / self.std, HALF_BIN / self.std
        lowest, inner, highest = LOG_MASSES[self.cdf](center, half)
        log_mass = torch.where(x < -1 + HALF_BIN, lowest, torch.where(x > 1 - HALF_BIN, highest, inner))
        return log_mass.clamp(min=math.log(self.floor)) if self.floor else log_mass


Masses = tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]


def exact_log_masses(center: Float[Tensor, "..."], half: Float[Tensor, "..."]) -> Masses:
    """ln of the normal mass below center + half, within half of the center, and above center - half."""
    inner = log_central_mass(center, half)
    return torch.special.log_ndtr(center + half), inner, torch.special.log_ndtr(half - center)


def tanh_log_masses(center: Float[Tensor, "..."], half: Float[Tensor, "..."]) -> Masses:
    """The same by the approximation of the official code; -inf where it rounds to nothing."""
    upper, lower = tanh_cdf(center + half), tanh_cdf(center - half)
    return torch.log(upper), torch.log(upper - lower), torch.log1p(-lower)


def tanh_cdf(z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Page's approximation of the normal distribution function (1977), good to 2e-4."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


LOG_MASSES = {Cdf.exact: exact_log_masses, Cdf.tanh: tanh_log_masses}


def log_central_mass(center: Float[Tensor, "..."], half: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """ln(Phi(center + half) - Phi(center - half)), half > 0, to the type's precision wherever the centre lies.

    By symmetry the interval is put on the left. Where it reaches over 0, the two values of erf have different
    signs and nothing cancels; where not, it is a difference of tails, taken in logarithms through
    Phi(z) = exp(-z²/2) erfcx(-z/sqrt 2) / 2. Each branch is finite everywhere, and so are both gradients.
    """
    upper = half - center.abs()
    across = upper.clamp(min=0)
    over_0 = torch.log(0.5 * (torch.erf(across / ROOT_2) + torch.erf((2 * half - across) / ROOT_2)))
    aside = upper.clamp(max=0)
    scaled = torch.log(torch.special.erfcx((2 * half - aside) / ROOT_2) / torch.special.erfcx(-aside / ROOT_2))
    log_ratio = 2 * half * (aside - half) + scaled  # ln of Phi at the lower end over Phi at the upper
    tail = torch.special.log_ndtr(aside) + torch.log(-torch.expm1(log_ratio))
    return torch.where(upper > 0, over_0, tail)
