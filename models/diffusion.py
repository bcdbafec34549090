"""A diffusion model: a process, the meaning of the network's output, and any callable as the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from typing_extensions import TypeVar

from models.distributions import Gaussian
from models.parameterizations import Parameterization
from models.pixels import PixelRange
from models.processes import GaussianProcess, Images, PerturbationProcess, Process, Time, required

Condition = Tensor | None
Network = Callable[[Images, Int64[Tensor, " B"], Condition], Float[Tensor, "B O H W"]]
Forward = TypeVar("Forward", bound=Process, default=GaussianProcess, covariant=True)


@dataclass(frozen=True)
class Prediction:
    """What the network says of x_t.

    output: what is trained towards the parameterization's target. x_0: the x̂_0 that it implies.
    spread: the second half of the channels, which the variance is made of where that is learned.
    """

    output: Images
    x_0: Images
    spread: Images | None


@dataclass(frozen=True)
class Diffusion(Generic[Forward]):
    """DPM, DDPM and NCSN are choices of these; none is a subclass.

    network(x_t [B, C, H, W], t [B] in 1..T, condition) → output [B, C, H, W], or [B, 2 C, H, W] with a learned
    variance: the engine while training, averaged weights while sampling, a closed form in the tests. pixels: the
    range that the data lies in.
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
        """What the network is trained to say, in the type of x_t."""
        return self.outputs(x_t, t, condition)[0]

    def outputs(self, x_t: Images, t: Time, condition: Condition = None) -> tuple[Images, Images | None]:
        """The network's answer: the output, and what it says of the variance where that is learned."""
        times = torch.full((len(x_t),), t, device=x_t.device) if isinstance(t, int) else t
        said = self.network(x_t, times, condition).to(x_t.dtype)
        channels, outputs = x_t.shape[1], self.parameterization.outputs
        if said.shape[1] != outputs * channels:
            raise ValueError(
                f"parameterization.variance={self.parameterization.variance.name} needs a network that gives "
                f"{outputs * channels} channels for images of {channels}, got {said.shape[1]}"
            )
        return said[:, :channels], said[:, channels:] if outputs == 2 else None

    def predict(self, x_t: Images, t: Time, condition: Condition = None, clip: bool = False) -> Prediction:
        """All that one call of the network says of x_t; `clip` holds x̂_0 within the range of the pixels."""
        output, spread = self.outputs(x_t, t, condition)
        x_0 = self.parameterization.x_0(self.process, output, x_t, t)
        return Prediction(output, x_0.clamp(self.pixels.low, 1) if clip else x_0, spread)

    def x_0(self, x_t: Images, t: Time, condition: Condition = None, clip: bool = False) -> Images:
        """x̂_0(x_t)."""
        return self.predict(x_t, t, condition, clip).x_0

    def score(self, x_t: Images, t: Time, condition: Condition = None) -> Images:
        """∇ log q(x_t), as the network knows it."""
        return self.parameterization.score(self.process, self.output(x_t, t, condition), x_t, t)

    def reverse(self, x_t: Images, t: Time, s: Time, condition: Condition = None, clip: bool = False) -> Gaussian:
        """p(x_s | x_t) (Ho et al. 2020, Eq. 1)."""
        required(self.process, GaussianProcess, "p(x_s | x_t)")  # before the network is asked
        return self.reverse_given(self.predict(x_t, t, condition, clip), x_t, t, s)

    def reverse_given(self, said: Prediction, x_t: Images, t: Time, s: Time) -> Gaussian:
        """p(x_s | x_t), where the network has already been asked."""
        process = required(self.process, GaussianProcess, "p(x_s | x_t)")
        return self.parameterization.reverse(process, x_t, said.x_0, t, s, said.spread)
