"""A diffusion model: a process, the meaning of the network's output, and any callable as the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic

import torch
from jaxtyping import Int64
from torch import Tensor
from typing_extensions import TypeVar

from models.distributions import Gaussian, Law
from models.parameterizations import Output, Parameterization, Prediction, ReverseKernel
from models.pixels import PixelRange
from models.processes import GaussianProcess, Images, MarkovProcess, Process, Time, required

Condition = Tensor | None
Network = Callable[[Images, Int64[Tensor, " B"], Condition], Output]
Steps = TypeVar("Steps", bound=Process, default=MarkovProcess, covariant=True)
Forward = TypeVar("Forward", bound=Process, default=GaussianProcess, covariant=True)


@dataclass(frozen=True)
class Chain(Generic[Steps]):
    """A reverse chain p(x_s | x_t): what the bound of 2015 is of, and what ancestral sampling follows.

    network(x_t [B, C, H, W], t [B] in 1..T, condition) → output [B, outputs · C, H, W], as many as the
    parameterization reads: the engine while training, averaged weights while sampling, a closed form in the tests.
    pixels: the range that the data lies in, where it is images.
    """

    process: Steps
    parameterization: ReverseKernel
    network: Network
    pixels: PixelRange = field(default_factory=PixelRange)

    def __post_init__(self) -> None:
        self.parameterization.check(self.process)

    def answer(self, x_t: Images, t: Time, condition: Condition = None) -> Output:
        """All that the network says, in the type of x_t."""
        times = torch.full((len(x_t),), t, device=x_t.device) if isinstance(t, int) else t
        said = self.network(x_t, times, condition).to(x_t.dtype)
        channels, outputs = x_t.shape[1], self.parameterization.outputs
        if said.shape[1] != outputs * channels:
            raise ValueError(
                f"{self.parameterization} needs a network that gives {outputs * channels} channels for images of "
                f"{channels}, got {said.shape[1]}"
            )
        return said

    def reverse(self, x_t: Images, t: Time, s: Time, condition: Condition = None, clip: bool = False) -> Law:
        """p(x_s | x_t) (Ho et al. 2020, Eq. 1); `clip` holds x̂_0, where there is one, to the pixels' range."""
        output, within = self.answer(x_t, t, condition), self.pixels if clip else None
        return self.parameterization.law(self.process, output, x_t, t, s, within)


@dataclass(frozen=True)
class Diffusion(Chain[Forward], Generic[Forward]):
    """A model whose network knows x̂_0 and the score, at any t. DPM, DDPM and NCSN are choices of its parts.

    On a process without a posterior there is no chain, and `reverse` raises ValueError.
    """

    process: Forward
    parameterization: Parameterization

    def output(self, x_t: Images, t: Time, condition: Condition = None) -> Images:
        """What the network is trained to say, in the type of x_t."""
        return self.answer(x_t, t, condition)[:, : x_t.shape[1]]

    def predict(self, x_t: Images, t: Time, condition: Condition = None, clip: bool = False) -> Prediction:
        """All that one call of the network says of x_t; `clip` holds x̂_0 within the range of the pixels."""
        output, within = self.answer(x_t, t, condition), self.pixels if clip else None
        return self.parameterization.predict(self.process, output, x_t, t, within)

    def x_0(self, x_t: Images, t: Time, condition: Condition = None, clip: bool = False) -> Images:
        """x̂_0(x_t)."""
        return self.predict(x_t, t, condition, clip).x_0

    def score(self, x_t: Images, t: Time, condition: Condition = None) -> Images:
        """∇ log q(x_t), as the network knows it."""
        return self.parameterization.score(self.process, self.output(x_t, t, condition), x_t, t)

    def reverse(self, x_t: Images, t: Time, s: Time, condition: Condition = None, clip: bool = False) -> Gaussian:
        required(self.process, GaussianProcess, "p(x_s | x_t)")  # before the network is asked
        return self.reverse_given(self.predict(x_t, t, condition, clip), x_t, t, s)

    def reverse_given(self, said: Prediction, x_t: Images, t: Time, s: Time) -> Gaussian:
        """p(x_s | x_t), where the network has already been asked."""
        process = required(self.process, GaussianProcess, "p(x_s | x_t)")
        return self.parameterization.reverse(process, x_t, said.x_0, t, s, said.spread)
