"""Multiplying a chain by a second law, p~(x_0) ∝ p(x_0) r(x_0): denoising and inpainting without training anew.

Each reverse step is multiplied by r(x_{t-1}, t-1) in closed form or, for a smooth r, by perturbing its
mean (Sohl-Dickstein et al. 2015, section 2.5). r is known of x_0; at other times it is r or a power.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from models.diffusion import Chain, Condition
from models.distributions import Bernoulli, Gaussian, Law
from models.noise import Noise, Purpose
from models.processes import Images

Field = Float[Tensor, "..."]


class Course(Enum):
    """r(x, t) over the chain."""

    constant = "constant"  # r(x)
    power = "power"  # r(x)^((T - t) / T): nothing where the chain is noise, all of it at the data

    def exponent(self, t: int, steps: int) -> float:
        """The power of r(x) at time t."""
        return 1.0 if self is Course.constant else (steps - t) / steps


class Factor(ABC):
    """r(x), as a thing to multiply laws by."""

    @abstractmethod
    def times(self, law: Law, exponent: float = 1.0) -> Law:
        """The normalised law ∝ law(x) r(x)^exponent."""

    def check(self, shape: Sequence[int]) -> None:  # noqa: B027
        """Raises ValueError for an r that is not of images of `shape`."""


@dataclass(frozen=True)
class Smooth(Factor):
    """Any smooth r, by its score ∂ ln r / ∂x: N(mu + Sigma ∂ ln r(mu), Sigma), for Sigma small."""

    score: Callable[[Images], Images]

    def times(self, law: Law, exponent: float = 1.0) -> Gaussian:
        law = gaussian(law, self)
        return Gaussian(law.mean + exponent * law.std**2 * self.score(law.mean), law.std)


@dataclass(frozen=True)
class GaussianFactor(Factor):
    """r(x) = N(x; mean, std²): the product of two Gaussians is one, exactly."""

    mean: Field
    std: Field

    def times(self, law: Law, exponent: float = 1.0) -> Gaussian:
        law = gaussian(law, self)
        # Written so that a law without width stays as it is.
        gain = law.std**2 / (law.std**2 + self.std**2 / exponent) if exponent else torch.zeros_like(law.std)
        return Gaussian(law.mean + gain * (self.mean - law.mean), law.std * (1 - gain).sqrt())


@dataclass(frozen=True)
class BernoulliFactor(Factor):
    """r(x) = Bernoulli(x; d): c d / (c d + (1 - c)(1 - d)) for each element."""

    probability: Field

    def times(self, law: Law, exponent: float = 1.0) -> Bernoulli:
        if not isinstance(law, Bernoulli):
            raise ValueError(f"BernoulliFactor multiplies Bernoulli laws, got {type(law).__name__}")
        c, d = law.probability, self.probability
        one, zero = c * d**exponent, (1 - c) * (1 - d) ** exponent
        return Bernoulli(one / (one + zero))


@dataclass(frozen=True)
class Delta(Factor):
    """r(x) = delta(x - value) where `mask` is 1, and 1 elsewhere: inpainting.

    value, mask: of the shape of an image, or of one for each image of the batch.
    """

    value: Field
    mask: Field

    def check(self, shape: Sequence[int]) -> None:
        for name, part in (("mask", self.mask), ("value", self.value)):
            if tuple(part.shape[-3:]) != tuple(shape):
                raise ValueError(
                    f"the {name} must be of the images' shape {tuple(shape)}, got {tuple(part.shape)}"
                )
        if not bool(((self.mask == 0) | (self.mask == 1)).all()):
            raise ValueError("the mask must be 1 where x is known and 0 elsewhere, got other values")

    def times(self, law: Law, exponent: float = 1.0) -> Law:
        known = self.mask.bool()
        if isinstance(law, Bernoulli):
            return Bernoulli(torch.where(known, self.value.to(law.probability), law.probability))
        law = gaussian(law, self)
        mean = torch.where(known, self.value.to(law.mean), law.mean)
        return Gaussian(mean, torch.where(known, torch.zeros_like(mean), law.std))


def gaussian(law: Law, factor: Factor) -> Gaussian:
    """The law, which must be Gaussian."""
    if not isinstance(law, Gaussian):
        raise ValueError(f"{type(factor).__name__} multiplies Gaussian laws, got {type(law).__name__}")
    return law


@torch.no_grad()
def sample_posterior(
    chain: Chain,
    factor: Factor,
    shape: Sequence[int],
    noise: Noise,
    course: Course = Course.constant,
    rounds: int = 1,
    condition: Condition = None,
    clip: bool = False,
) -> Images:
    """x_0 ~ p~ ∝ p r: each reverse step multiplied by r, from the prior multiplied by r down.

    rounds: how often each time is visited. p~(x_{t-1} | x_t) leaves out how the normaliser depends on x_t; a
    round more steps forward to x_t and back again, and brings x_{t-1} nearer to p(x_{t-1}) r(x_{t-1}).
    clip: hold x̂_0, where there is one, to the pixels' range, as a sampler of the chain does.
    """
    factor.check(shape)
    process = chain.process
    blank = torch.zeros(len(noise.index), *shape, device=noise.index.device)
    start = factor.times(process.stationary(blank), course.exponent(process.steps, process.steps))
    x = start.draw(noise, Purpose.PRIOR, shape)
    for t in range(process.steps, 0, -1):
        for number in range(rounds if t > 1 else 1):
            step = t + number * (process.steps + 1)
            if number:
                x = process.transition(x, t, t - 1).draw(noise, Purpose.FORWARD, shape, step)
            law = chain.reverse(x, t, t - 1, condition, clip)
            law = factor.times(law, course.exponent(t - 1, process.steps))
            x = law.draw(noise, Purpose.REVERSE, shape, step) if t > 1 else law.mode
    return x
