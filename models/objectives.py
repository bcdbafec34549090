"""Training objectives: values that turn a batch into one loss for each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from models.diffusion import Condition, Diffusion
from models.noise import Noise, Purpose
from models.parameterizations import Variance
from models.processes import GaussianProcess, Images, PerturbationProcess, Process


@dataclass(frozen=True)
class Terms:
    """What an objective says of each image of a batch; nothing is averaged here.

    loss: [B], what is minimised. t: [B], the time that it was taken at.
    """

    loss: Float[Tensor, " B"]
    t: Int64[Tensor, " B"]


@dataclass
class Objective(ABC):
    """Called with a diffusion, data x_0 in its range and the noise of each image."""

    needs: ClassVar[type[Process]] = GaussianProcess

    variances = tuple(Variance)  # those that it can train; a subclass may name fewer

    @abstractmethod
    def __call__(self, diffusion: Diffusion[Any], x_0: Images, noise: Noise, condition: Condition = None) -> Terms:
        """The terms of the batch."""


@dataclass
class SimpleLoss(Objective):
    """L_simple: the squared error of the network's output at a uniform t (Ho et al. 2020, Eq. 14, Algorithm 1)."""

    needs: ClassVar[type[Process]] = PerturbationProcess
    variances = (Variance.small, Variance.large)

    def __call__(
        self, diffusion: Diffusion[PerturbationProcess], x_0: Images, noise: Noise, condition: Condition = None
    ) -> Terms:
        process = diffusion.process
        t = process.times(noise)
        epsilon = noise.normal(Purpose.EPSILON, x_0.shape[1:])
        x_t = process.marginal(x_0, t).sample(epsilon)
        target = diffusion.parameterization.target(process, x_0, x_t, epsilon, t)
        error = diffusion.output(x_t, t, condition) - target
        return Terms(loss=error.square().flatten(1).mean(1), t=t)
