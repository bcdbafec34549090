"""Score matching: objectives under which a network becomes the score of the noised data, ∇ log q(x_t).

All are the paper's expectations for each image, summed over its pixels, and weighted by sigma_t^power.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from models.diffusion import Condition, Diffusion
from models.noise import Noise, Purpose
from models.objectives import Objective, Terms
from models.processes import Images, PerturbationProcess, Process, required

ScoreFunction = Callable[[Images], Images]


@dataclass
class ScoreMatching(Objective):
    """A matching of the score at a uniform t (Song & Ermon 2019, section 4.2).

    power: the weight is lambda(sigma_t) = sigma_t^power; 2 makes every level count alike (their Eq. 6), 0 is the
    plain objective, for a ladder of one sigma.
    """

    power: float = 2.0
    needs: ClassVar[type[Process]] = PerturbationProcess

    def __call__(
        self, diffusion: Diffusion[PerturbationProcess], x_0: Images, noise: Noise, condition: Condition = None
    ) -> Terms:
        process = required(diffusion.process, PerturbationProcess, "score matching")
        t = process.times(noise)
        epsilon = noise.normal(Purpose.EPSILON, x_0.shape[1:]).to(x_0.dtype)
        law = process.marginal(x_0, t)
        loss = self.mismatch(
            lambda x_t: diffusion.score(x_t, t, condition), law.sample(epsilon), -epsilon / law.std, noise
        )
        return Terms(loss=process.sigma(t).to(loss.dtype) ** self.power * loss, t=t)

    @abstractmethod
    def mismatch(self, score: ScoreFunction, x_t: Images, of_kernel: Images, noise: Noise) -> Float[Tensor, " B"]:
        """The unweighted objective of each image; `of_kernel` is the kernel's own score, ∇ log q(x_t | x_0)."""


@dataclass
class DenoisingScoreMatching(ScoreMatching):
    """½ ‖s(x_t) - ∇ log q(x_t | x_0)‖² (Vincent 2011; Song & Ermon 2019, Eq. 5-6)."""

    def mismatch(self, score: ScoreFunction, x_t: Images, of_kernel: Images, noise: Noise) -> Float[Tensor, " B"]:
        return squared_norm(score(x_t) - of_kernel) / 2


@dataclass
class ImplicitScoreMatching(ScoreMatching):
    """tr ∇s(x_t) + ½ ‖s(x_t)‖², the trace exact: a backward pass a pixel (Hyvärinen 2005; Song & Ermon, Eq. 1)."""

    def mismatch(self, score: ScoreFunction, x_t: Images, of_kernel: Images, noise: Noise) -> Float[Tensor, " B"]:
        x_t = x_t.detach().requires_grad_()
        s = score(x_t)
        pixels = range(x_t[0].numel())
        return sum((row(s, x_t, i)[:, i] for i in pixels), start=squared_norm(s) / 2)


class Projection(Enum):
    """The law of a random direction v, for which E[v vᵀ] = I. The names are what a config says."""

    gaussian = "gaussian"  # N(0, I)
    rademacher = "rademacher"  # each element -1 or 1
    sphere = "sphere"  # uniform on the sphere of radius sqrt(D)

    def draw(self, noise: Noise, x: Images, number: int) -> Images:
        """Direction `number` of each image."""
        if self is Projection.rademacher:
            drawn = noise.uniform(Purpose.PROJECTION, x.shape[1:], step=number)
            return torch.where(drawn > 0.5, 1.0, -1.0).to(x)
        v = noise.normal(Purpose.PROJECTION, x.shape[1:], step=number).to(x)
        if self is Projection.gaussian:
            return v
        return v * (x[0].numel() / squared_norm(v)).sqrt().reshape(-1, *[1] * (x.ndim - 1))


@dataclass
class SlicedScoreMatching(ScoreMatching):
    """vᵀ ∇s(x_t) v + ½ (vᵀ s)², for random directions v (Song et al. 2019, "Sliced score matching", Eq. 7-8).

    projection: the law of v. projections: how many an image takes the mean of. reduced: with ½ ‖s‖² in the place
    of ½ (vᵀ s)², which is its mean over v, for less variance (their SSM-VR; Song & Ermon 2019, Eq. 3).
    """

    projection: Projection = Projection.rademacher
    projections: int = 1
    reduced: bool = True

    def __post_init__(self) -> None:
        if self.projections < 1:
            raise ValueError(f"objective.projections must be at least 1, got {self.projections}")

    def mismatch(self, score: ScoreFunction, x_t: Images, of_kernel: Images, noise: Noise) -> Float[Tensor, " B"]:
        x_t = x_t.detach().requires_grad_()
        s = score(x_t)
        slices = []
        for number in range(self.projections):
            v = self.projection.draw(noise, x_t, number)
            along = (v * s).flatten(1).sum(1)
            (curved,) = torch.autograd.grad(along.sum(), x_t, create_graph=True)
            size = squared_norm(s) if self.reduced else along.square()
            slices.append((v * curved).flatten(1).sum(1) + size / 2)
        return torch.stack(slices).mean(0)


def squared_norm(x: Images) -> Float[Tensor, " B"]:
    """‖x‖² of each image."""
    return x.square().flatten(1).sum(1)


def row(s: Images, x: Images, i: int) -> Float[Tensor, "B D"]:
    """Row i of the Jacobian of s by x, for each image."""
    (gradient,) = torch.autograd.grad(s.flatten(1)[:, i].sum(), x, create_graph=True)
    return gradient.flatten(1)
