"""Langevin dynamics: samplers that follow the score and add noise, at one level or down the ladder."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from models.diffusion import Condition, Diffusion
from models.ladder import NoiseLadder
from models.noise import Noise, Purpose
from models.processes import Images, Process, required
from models.samplers import Sampler, last


class Step(Enum):
    """What a step of size alpha is. One is the other at twice the alpha; published sizes are meant for either."""

    half = "half"  # x + alpha/2 score + sqrt(alpha) z: Song & Ermon 2019, Algorithm 1, and their toy code
    whole = "whole"  # x + alpha score + sqrt(2 alpha) z: their image code, and Song & Ermon 2020, Algorithm 1


@dataclass
class LangevinDynamics(Sampler):
    """What chains of Langevin dynamics have in common.

    epsilon: the step size. steps: how many, at a level. step: what a step is. start: the box that x is first drawn
    from, uniformly.
    """

    epsilon: float = 2e-5
    steps: int = 100
    step: Step = Step.half
    start: list[float] = field(default_factory=lambda: [0.0, 1.0])
    needs: ClassVar[type[Process]] = NoiseLadder

    def __post_init__(self) -> None:
        self.start = list(self.start)
        if not self.epsilon > 0:
            raise ValueError(f"sampler.epsilon must be positive, got {self.epsilon}")
        if self.steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {self.steps}")
        if len(self.start) != 2 or not self.start[0] < self.start[1]:
            raise ValueError(f"sampler.start must be two numbers, the smaller first, got {self.start}")

    @abstractmethod
    def walk(
        self, diffusion: Diffusion[NoiseLadder], shape: Sequence[int], noise: Noise, condition: Condition = None
    ) -> Iterator[Images]:
        """x where the chains start, and after each of their steps."""

    @abstractmethod
    def length(self, process: NoiseLadder) -> int:
        """How many steps a chain has."""

    @torch.no_grad()
    def __call__(
        self, diffusion: Diffusion[NoiseLadder], shape: Sequence[int], noise: Noise, condition: Condition = None
    ) -> Images:
        return last(self.walk(diffusion, shape, noise, condition))

    def started(self, noise: Noise, shape: Sequence[int]) -> Images:
        """The images that the chains start from."""
        low, high = self.start
        return low + (high - low) * noise.uniform(Purpose.PRIOR, shape)

    def moved(self, x: Images, score: Images, alpha: float, z: Images) -> Images:
        """One step of size alpha, with the standard normal z."""
        size = alpha / 2 if self.step is Step.half else alpha
        return x + size * score + math.sqrt(2 * size) * z


@dataclass
class Langevin(LangevinDynamics):
    """Langevin dynamics at one level of the ladder (Song & Ermon 2019, Eq. 4).

    t: the level; 1 is that of the least noise.
    """

    steps: int = 1000
    t: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t < 1:
            raise ValueError(f"sampler.t must be at least 1, got {self.t}")

    @torch.no_grad()
    def walk(
        self, diffusion: Diffusion[NoiseLadder], shape: Sequence[int], noise: Noise, condition: Condition = None
    ) -> Iterator[Images]:
        process = required(diffusion.process, NoiseLadder, "sampler=langevin")
        if self.t > process.levels:
            raise ValueError(f"sampler.t must be at most process.levels = {process.levels}, got {self.t}")
        x = self.started(noise, shape)
        yield x
        for k in range(self.steps):
            z = noise.normal(Purpose.LANGEVIN, shape, step=k)
            x = self.moved(x, diffusion.score(x, self.t, condition), self.epsilon, z)
            yield x

    def length(self, process: NoiseLadder) -> int:
        return self.steps


@dataclass
class AnnealedLangevin(LangevinDynamics):
    """Langevin dynamics down the ladder, from much noise to little (Song & Ermon 2019, Algorithm 1).

    epsilon is the step size at the last level. denoise: end with one step to x̂_0, which takes the last level's
    noise away (Song & Ermon 2020, section 4).
    """

    denoise: bool = False

    @torch.no_grad()
    def __call__(
        self, diffusion: Diffusion[NoiseLadder], shape: Sequence[int], noise: Noise, condition: Condition = None
    ) -> Images:
        x = last(self.walk(diffusion, shape, noise, condition))
        return diffusion.x_0(x, 1, condition) if self.denoise else x

    @torch.no_grad()
    def inpaint(
        self, diffusion: Diffusion[NoiseLadder], known: Known, noise: Noise, condition: Condition = None
    ) -> Images:
        """What is not known, drawn given what is (Song & Ermon 2019, Algorithm 2)."""
        x = last(self.walk(diffusion, known.x.shape[1:], noise, condition, known))
        return torch.where(known.mask, known.x, diffusion.x_0(x, 1, condition)) if self.denoise else x

    @torch.no_grad()
    def walk(
        self,
        diffusion: Diffusion[NoiseLadder],
        shape: Sequence[int],
        noise: Noise,
        condition: Condition = None,
        known: Known | None = None,
    ) -> Iterator[Images]:
        """Down the ladder; each step ends with what is known put back. The step of `denoise` is not among them."""
        process = required(diffusion.process, NoiseLadder, "sampler=annealed_langevin")
        x = self.started(noise, shape)
        yield x
        for t in range(process.levels, 0, -1):
            alpha = self.epsilon * float(process.sigma(t) / process.sigma(1)) ** 2
            noised = known.noised(process, t, noise) if known else None
            for k in range((process.levels - t) * self.steps, (process.levels - t + 1) * self.steps):
                z = noise.normal(Purpose.LANGEVIN, shape, step=k)
                x = self.moved(x, diffusion.score(x, t, condition), alpha, z)
                x = torch.where(noised.mask, noised.x, x) if noised else x
                yield x

    def length(self, process: NoiseLadder) -> int:
        return process.levels * self.steps


@dataclass(frozen=True)
class Known:
    """Images of which the pixels under the mask are known: those of `x`, [B, C, H, W].

    mask: [B, C, H, W], or 1 in the place of B or C for all images or channels alike.
    """

    x: Images
    mask: Bool[Tensor, "..."]

    def __post_init__(self) -> None:
        fits = self.mask.ndim == 4 and self.mask.shape[2:] == self.x.shape[2:]
        if not fits or any(m not in (1, n) for m, n in zip(self.mask.shape[:2], self.x.shape[:2], strict=True)):
            raise ValueError(
                f"the mask must be [B or 1, C or 1, H, W] for images {list(self.x.shape)}, "
                f"got {list(self.mask.shape)}"
            )

    def noised(self, process: NoiseLadder, t: int, noise: Noise) -> Known:
        """What is known, with the noise of level t: drawn once a level, as in Algorithm 2."""
        drawn = noise.normal(Purpose.KNOWN, self.x.shape[1:], step=t)
        return Known(process.marginal(self.x, t).sample(drawn.to(self.x.dtype)), self.mask)
