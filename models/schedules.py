"""Noise schedules: beta_t for t = 1..T, in float64, as the papers define them.

Position i of a table of betas is t = i + 1. `alpha_bar` adds alpha-bar_0 = 1, so that its position t is t.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor


@dataclass
class BetaSchedule(ABC):
    """beta_t, the variance that step t of the forward process adds."""

    steps: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"schedule.steps must be at least 1, got {self.steps}")

    @abstractmethod
    def beta(self) -> Float64[Tensor, " T"]:
        """beta_1 .. beta_T, each in (0, 1]."""


@dataclass
class RangedSchedule(BetaSchedule):
    """A schedule that goes from `first` = beta_1 to `last` = beta_T.

    rescaled: both are meant for 1000 steps and are multiplied by 1000 / T, so that any T ends in as much noise;
    some codes do so, others not.
    """

    first: float = 1e-4
    last: float = 0.02
    rescaled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in zip(("first", "last"), self.ends, strict=True):
            if not 0 < value <= 1:
                by = f" · 1000 / {self.steps}" if self.rescaled else ""
                raise ValueError(f"schedule.{name} must lie in (0, 1], got {getattr(self, name)}{by}")

    @property
    def ends(self) -> tuple[float, float]:
        """beta_1 and beta_T."""
        scale = 1000 / self.steps if self.rescaled else 1.0
        return scale * self.first, scale * self.last


@dataclass
class Linear(RangedSchedule):
    """beta linear in t (Ho et al. 2020, section 4)."""

    def beta(self) -> Float64[Tensor, " T"]:
        return torch.linspace(*self.ends, self.steps, dtype=torch.float64)


@dataclass
class Quadratic(RangedSchedule):
    """sqrt(beta) linear in t ("quad" in the code of Ho et al. 2020)."""

    def beta(self) -> Float64[Tensor, " T"]:
        first, last = self.ends
        return torch.linspace(first**0.5, last**0.5, self.steps, dtype=torch.float64) ** 2


@dataclass
class Sigmoid(RangedSchedule):
    """A sigmoid over [-6, 6], squashed to [beta_1, beta_T]."""

    def beta(self) -> Float64[Tensor, " T"]:
        first, last = self.ends
        return first + (last - first) * torch.sigmoid(torch.linspace(-6, 6, self.steps, dtype=torch.float64))


@dataclass
class Constant(BetaSchedule):
    """The same beta at every step."""

    value: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.value <= 1:
            raise ValueError(f"schedule.value must lie in (0, 1], got {self.value}")

    def beta(self) -> Float64[Tensor, " T"]:
        return torch.full((self.steps,), self.value, dtype=torch.float64)


@dataclass
class Cosine(BetaSchedule):
    """alpha-bar_t = f(t) / f(0), f(t) = cos²((t/T + s) / (1 + s) · π/2) (Nichol & Dhariwal 2021, Eq. 17)."""

    offset: float = 0.008
    maximum: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.offset >= 0 and 0 < self.maximum <= 1):
            raise ValueError(
                "schedule.offset must be at least 0 and schedule.maximum lie in (0, 1], "
                f"got {self.offset} and {self.maximum}"
            )

    def beta(self) -> Float64[Tensor, " T"]:
        time = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        f = torch.cos((time + self.offset) / (1 + self.offset) * math.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=self.maximum)


@dataclass
class Reciprocal(BetaSchedule):
    """beta_t = 1 / (T - t + 1): an equal share of signal is lost each step (Sohl-Dickstein 2015, 2.4.1).

    alpha-bar_t is (T - t) / T, and so exactly 0 at T.
    """

    def beta(self) -> Float64[Tensor, " T"]:
        return 1 / torch.arange(self.steps, 0, -1, dtype=torch.float64)


@dataclass
class Geometric(BetaSchedule):
    """The variance of the noise over that of the signal grows by the same factor in each step.

    From beta_1 = `first`, a small constant, until 1/(T + 1) of the signal's variance is left at T. Each octave of
    noise has as many steps, as in the ladder of Song & Ermon 2019 (section 4.1): a curve has no scale of its own.
    """

    first: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.first < 1:
            raise ValueError(f"schedule.first must lie between 0 and 1, got {self.first}")

    def beta(self) -> Float64[Tensor, " T"]:
        ends = math.log(self.first / (1 - self.first)), math.log(self.steps)
        kept = torch.sigmoid(-torch.linspace(*ends, self.steps, dtype=torch.float64))
        return 1 - torch.cat((kept[:1], kept[1:] / kept[:-1]))


@dataclass
class Learned(Geometric):
    """beta_2 .. beta_T learned with the network, beta_1 = `first` a small constant (Sohl-Dickstein 2015, 2.4.1).

    They start as the geometric ones: the paper does not say where. A beta_1 that was learned would go to 0, where
    it makes the bound infinite on repeated data.
    """


@dataclass
class Live(BetaSchedule):
    """The beta that `now` gives each time it is asked: those of a network that is being trained."""

    now: Callable[[], Float64[Tensor, " T"]] = field(kw_only=True)

    def beta(self) -> Float64[Tensor, " T"]:
        return self.now()


def alpha_bar(beta: Float64[Tensor, " T"]) -> Float64[Tensor, " T+1"]:
    """alpha-bar_t, the product of 1 - beta_s for s <= t (Ho et al. 2020, Eq. 4), from alpha-bar_0 = 1 on."""
    return torch.cat((beta.new_ones(1), torch.cumprod(1 - beta, dim=0)))
