"""Training objectives: values that turn a batch into one loss for each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from models.bound import BIT, around, step_kl
from models.classes import Classes, hidden
from models.diffusion import Chain, Condition, Diffusion
from models.noise import Noise, Purpose
from models.parameterizations import Variance
from models.processes import GaussianProcess, Images, MarkovProcess, PerturbationProcess, Process


@dataclass(frozen=True)
class Terms:
    """What an objective says of each image of a batch; nothing is averaged here.

    loss: [B], what is minimised. t: [B], the time that it was taken at.
    """

    loss: Float[Tensor, " B"]
    t: Int64[Tensor, " B"]


@dataclass
class Objective(ABC):
    """Called with a diffusion, data x_0 in its range and the noise of each image.

    needs: the kind of process. through_x_0: whether it asks the network for x̂_0 or the score, which a `Chain` has
    only as a `Diffusion`. label_dropout: the share of images whose class a network that knows classes is not told,
    so that it learns the law of all of them as well, as guidance needs it to.
    """

    label_dropout: float = field(default=0.1, kw_only=True)
    needs: ClassVar[type[Process]] = GaussianProcess
    through_x_0: ClassVar[bool] = True

    variances = tuple(Variance)  # those that it can train; a subclass may name fewer

    @abstractmethod
    def __call__(self, diffusion: Any, x_0: Images, noise: Noise, condition: Condition = None) -> Terms:
        """The terms of the batch."""

    def told(self, classes: Classes, noise: Noise) -> Classes:
        """What the network is told of the images' classes."""
        return hidden(classes, noise, self.label_dropout)


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


class Weight(Enum):
    """What the KL term at one t stands for, where paper and official code differ."""

    paper = "paper"  # T - 1 terms, those of t = 2..T
    code = "code"  # T


@dataclass
class LowerBound(Objective):
    """-K, its KL terms estimated by `weight` times the one of a uniform t in 2..T (Sohl-Dickstein 2015, Eq. 14).

    In nats for each element of x, so that data of any size has losses of the same order. x_t is a smooth function
    of fixed noise, so the gradient also reaches a learned schedule (section 2.4.1).
    """

    weight: Weight = Weight.paper
    needs: ClassVar[type[Process]] = MarkovProcess
    through_x_0: ClassVar[bool] = False

    def __call__(self, diffusion: Chain, x_0: Images, noise: Noise, condition: Condition = None) -> Terms:
        process = diffusion.process
        process.check(x_0)
        t = 2 + noise.integers(Purpose.TIME, process.steps - 1)
        x_t = process.marginal(x_0, t).draw(noise, Purpose.EPSILON, x_0.shape[1:]).to(x_0.dtype)
        kl = step_kl(diffusion, x_0, x_t, t, condition)
        terms = process.steps - (self.weight is Weight.paper)
        k = around(process, x_0, terms * kl[:, None]).bits * BIT
        return Terms(loss=-k / x_0[0].numel(), t=t)
