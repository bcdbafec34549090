"""Samplers: each turns a diffusion and the noise of some images into those images, in one function.

The images are x_0 in the model's own range, [-1, 1] for pixels, and image i depends only on (seed, i).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import torch

from models.diffusion import Chain, Condition, Diffusion
from models.noise import Noise, Purpose
from models.processes import GaussianProcess, Images, MarkovProcess, Process, required

Stage = TypeVar("Stage")


@dataclass
class Sampler(ABC):
    """Called with a diffusion, the shape (C, H, W) of one image and the noise of each image.

    needs: the kind of process. through_x_0: whether it asks the network for x̂_0 or the score, which a `Chain` has
    only as a `Diffusion`.
    """

    needs: ClassVar[type[Process]] = GaussianProcess
    through_x_0: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, diffusion: Any, shape: Sequence[int], noise: Noise, condition: Condition = None) -> Images:
        """x_0 [B, C, H, W], one image for each index of the noise. Refuses a process that is not what it needs."""

    def check(self, process: Process, name: str) -> None:
        """Raises ValueError where it cannot sample this process; `name` is what the config calls it."""
        required(process, self.needs, f"{name}={type(self).__name__}")


@dataclass
class ReverseChain(Sampler):
    """Goes from x_T to x_0 through times of the process.

    steps: how many network evaluations an image takes; 0 means T, all of them.
    clip: hold x̂_0 within [-1, 1] at every step, as the official DDPM code does.
    """

    steps: int = 0
    clip: bool = True

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"sampler.steps must be at least 0 (0 means all), got {self.steps}")

    def check(self, process: Process, name: str) -> None:
        super().check(process, name)
        if self.steps > process.steps:
            raise ValueError(f"{name}.steps must be at most process.steps={process.steps}, got {self.steps}")


@dataclass
class Ancestral(ReverseChain):
    """x_T ~ p(x_T), then x_s ~ p(x_s | x_t) down to x_0, the last step without noise (Ho et al. 2020, Alg. 2)."""

    needs: ClassVar[type[Process]] = MarkovProcess
    through_x_0: ClassVar[bool] = False

    @torch.no_grad()
    def __call__(
        self, diffusion: Chain, shape: Sequence[int], noise: Noise, condition: Condition = None
    ) -> Images:
        return last(self.walk(diffusion, shape, noise, condition))[1]

    def walk(
        self, diffusion: Chain, shape: Sequence[int], noise: Noise, condition: Condition = None
    ) -> Iterator[tuple[int, Images]]:
        """The whole chain, from (T, x_T) to (0, x_0)."""
        process = required(diffusion.process, MarkovProcess, "sampler=ancestral")
        return self.descend(diffusion, process.prior(noise, shape), process.steps, noise, condition)

    @torch.no_grad()
    def descend(
        self, diffusion: Chain, x: Images, t: int, noise: Noise, condition: Condition = None
    ) -> Iterator[tuple[int, Images]]:
        """The chain from x at t down: each time it visits and the x there, from (t, x) to (0, x_0)."""
        yield t, x
        below = [s for s in respaced(diffusion.process.steps, self.steps) if s < t]
        for u, s in pairwise([t, *below]):
            law = diffusion.reverse(x, u, s, condition, self.clip)
            x = law.draw(noise, Purpose.REVERSE, x.shape[1:], step=u) if s > 0 else law.mode
            yield s, x


@dataclass
class Ddim(ReverseChain):
    """The family of Song et al. 2021 (DDIM), Eq. 12: eta = 0 draws no noise after x_T, eta = 1 is ancestral."""

    steps: int = 50
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sampler.eta must lie in [0, 1], got {self.eta}")

    @torch.no_grad()
    def __call__(
        self, diffusion: Diffusion, shape: Sequence[int], noise: Noise, condition: Condition = None
    ) -> Images:
        process = required(diffusion.process, GaussianProcess, "sampler=ddim")
        x = process.prior(noise, shape)
        for t, s in pairwise(respaced(process.steps, self.steps)):
            x_0 = diffusion.x_0(x, t, condition, self.clip)
            sigma = self.eta * process.posterior_coefficients(t, s)[2]
            direction = (1 - process.alpha_bar(s) - sigma**2).clamp(min=0).sqrt()
            mean = process.alpha_bar(s).sqrt() * x_0 + direction * process.epsilon(x, x_0, t)
            drawn = sigma * noise.normal(Purpose.REVERSE, shape, step=t) if self.eta > 0 and s > 0 else 0
            x = mean + drawn
        return x


def respaced(total: int, steps: int) -> list[int]:
    """The times that a sampler visits: T first, 0 last, in `steps` even strides (0: all T of them)."""
    if steps > total:
        raise ValueError(f"sampler.steps must be at most the process's {total} steps, got {steps}")
    count = steps or total
    return [total * i // count for i in range(count, -1, -1)]


def last(walk: Iterator[Stage]) -> Stage:
    """Where a walk ends, of which nothing on the way is kept."""
    (end,) = deque(walk, maxlen=1)
    return end
