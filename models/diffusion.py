"""A diffusion model: a process, the meaning of the network's output, and any callable as the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from models.distributions import Law
from models.parameterizations import Output, Parameterization, ReverseKernel
from models.processes import GaussianProcess, Images, MarkovProcess, Time

Condition = Tensor | None
Network = Callable[[Images, Int64[Tensor, " B"], Condition], Output]


@dataclass(frozen=True)
class Chain:
    """A reverse chain p(x_s | x_t): what the bound of 2015 is of, and what ancestral sampling follows.

    network(x_t [B, C, H, W], t [B] in 1..T, condition) → output [B, outputs · C, H, W]: the engine while training,
    averaged weights while sampling, a closed form in the tests.
    """

    process: MarkovProcess
    parameterization: ReverseKernel
    network: Network

    def __post_init__(self) -> None:
        self.parameterization.check(self.process)

    def output(self, x_t: Images, t: Time, condition: Condition = None) -> Output:
        """The network's answer, in the type of x_t."""
        times = torch.full((len(x_t),), t, device=x_t.device) if isinstance(t, int) else t
        return self.network(x_t, times, condition).to(x_t.dtype)

    def reverse(self, x_t: Images, t: Time, s: Time, condition: Condition = None, clip: bool = False) -> Law:
        """p(x_s | x_t) (Ho et al. 2020, Eq. 1)."""
        return self.parameterization.law(self.process, self.output(x_t, t, condition), x_t, t, s, clip)


@dataclass(frozen=True)
class Diffusion(Chain):
    """A Gaussian chain whose network knows x̂_0, at any t: what a denoising loss and the fast samplers need."""

    process: GaussianProcess
    parameterization: Parameterization

    def x_0(self, x_t: Images, t: Time, condition: Condition = None, clip: bool = False) -> Images:
        """x̂_0(x_t); `clip` holds it within [-1, 1], where pixels lie."""
        x_0 = self.parameterization.x_0(self.process, self.output(x_t, t, condition), x_t, t)
        return x_0.clamp(-1, 1) if clip else x_0
