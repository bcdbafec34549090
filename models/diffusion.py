"""A diffusion model: a process, the meaning of the network's output, and any callable as the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from models.distributions import Gaussian
from models.parameterizations import Parameterization
from models.processes import GaussianProcess, Images, Time

Condition = Tensor | None
Network = Callable[[Images, Int64[Tensor, " B"], Condition], Images]


@dataclass(frozen=True)
class Diffusion:
    """DPM and DDPM are choices of these three; none is a subclass.

    network(x_t [B, C, H, W], t [B] in 1..T, condition) → output [B, C, H, W]: the engine while training, averaged
    weights while sampling, a closed form in the tests.
    """

    process: GaussianProcess
    parameterization: Parameterization
    network: Network

    def __post_init__(self) -> None:
        last = float(self.process.alpha_bar(self.process.steps))
        if self.parameterization.divides_by_signal and last <= 0:
            raise ValueError(
                f"parameterization={type(self.parameterization).__name__} recovers x_0 by dividing by "
                f"sqrt(alpha-bar_t), which is 0 at t = {self.process.steps} under the schedule "
                f"{type(self.process.schedule).__name__}; choose another parameterization or schedule"
            )

    def output(self, x_t: Images, t: Time, condition: Condition = None) -> Images:
        """The network's answer, in the type of x_t."""
        times = torch.full((len(x_t),), t, device=x_t.device) if isinstance(t, int) else t
        return self.network(x_t, times, condition).to(x_t.dtype)

    def x_0(self, x_t: Images, t: Time, condition: Condition = None, clip: bool = False) -> Images:
        """x̂_0(x_t); `clip` holds it within [-1, 1], where pixels lie."""
        x_0 = self.parameterization.x_0(self.process, self.output(x_t, t, condition), x_t, t)
        return x_0.clamp(-1, 1) if clip else x_0

    def reverse(self, x_t: Images, t: Time, s: Time, condition: Condition = None, clip: bool = False) -> Gaussian:
        """p(x_s | x_t) (Ho et al. 2020, Eq. 1)."""
        x_0 = self.x_0(x_t, t, condition, clip)
        return self.parameterization.reverse(self.process, x_t, x_0, t, s)
