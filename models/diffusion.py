"""A diffusion model: a process, the meaning of the network's output, and any callable as the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import torch
from jaxtyping import Int64
from torch import Tensor
from typing_extensions import TypeVar

from models.distributions import Gaussian
from models.parameterizations import Parameterization
from models.pixels import PixelRange
from models.processes import GaussianProcess, Images, PerturbationProcess, Process, Time, required

Condition = Tensor | None
Network = Callable[[Images, Int64[Tensor, " B"], Condition], Images]
Forward = TypeVar("Forward", bound=Process, default=GaussianProcess, covariant=True)


@dataclass(frozen=True)
class Diffusion(Generic[Forward]):
    """DPM, DDPM and NCSN are choices of these; none is a subclass.

    network(x_t [B, C, H, W], t [B] in 1..T, condition) → output [B, C, H, W]: the engine while training, averaged
    weights while sampling, a closed form in the tests. pixels: the range that the data lies in.
    """

    process: Forward
    parameterization: Parameterization
    network: Network
    pixels: PixelRange = PixelRange.signed

    def __post_init__(self) -> None:
        by = f"parameterization={type(self.parameterization).__name__}"
        required(self.process, self.parameterization.needs, by)
        if self.parameterization.divides_by_signal:
            process = required(self.process, PerturbationProcess, by)
            if float(process.signal(process.steps)) <= 0:
                raise ValueError(
                    f"{by} recovers x_0 by dividing by sqrt(alpha-bar_t), which is 0 at t = {process.steps} under "
                    f"{process}; choose another parameterization or schedule"
                )

    def output(self, x_t: Images, t: Time, condition: Condition = None) -> Images:
        """The network's answer, in the type of x_t."""
        times = torch.full((len(x_t),), t, device=x_t.device) if isinstance(t, int) else t
        return self.network(x_t, times, condition).to(x_t.dtype)

    def x_0(self, x_t: Images, t: Time, condition: Condition = None, clip: bool = False) -> Images:
        """x̂_0(x_t); `clip` holds it within the range of the pixels."""
        x_0 = self.parameterization.x_0(self.process, self.output(x_t, t, condition), x_t, t)
        return x_0.clamp(self.pixels.low, 1) if clip else x_0

    def score(self, x_t: Images, t: Time, condition: Condition = None) -> Images:
        """∇ log q(x_t), as the network knows it."""
        return self.parameterization.score(self.process, self.output(x_t, t, condition), x_t, t)

    def reverse(self, x_t: Images, t: Time, s: Time, condition: Condition = None, clip: bool = False) -> Gaussian:
        """p(x_s | x_t) (Ho et al. 2020, Eq. 1)."""
        process = required(self.process, GaussianProcess, "p(x_s | x_t)")
        x_0 = self.x_0(x_t, t, condition, clip)
        return self.parameterization.reverse(process, x_t, x_0, t, s)
