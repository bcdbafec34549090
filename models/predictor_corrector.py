"""Predictor-corrector sampling (Song et al. 2021, "Score-based generative modeling through SDEs", Alg. 2-5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from models.diffusion import Condition, Diffusion
from models.distributions import Gaussian
from models.noise import Noise, Purpose
from models.processes import Images, PerturbationProcess, Process, per_image, required
from models.samplers import ReverseChain, respaced


class Predictor(Enum):
    """How x_t becomes x_s. The names are what a config says."""

    ancestral = "ancestral"  # q(x_s | x_t, x̂_0): their Eq. 47 on the ladder, DDPM's with small variance else
    reverse_diffusion = "reverse_diffusion"  # the reverse SDE, discretized as the forward one is: their Eq. 46


@dataclass
class PredictorCorrector(ReverseChain):
    """Each step down is followed by steps of Langevin dynamics at the level that it came to.

    predictor: the step down. corrections: how many Langevin steps follow it. ratio: r, the signal-to-noise ratio
    that sets their size; 0.16 is the paper's for the ladder on CIFAR-10. steps: of the predictor; an image takes
    (1 + corrections) · steps - corrections evaluations of the network.

    The size of a Langevin step is each image's own, where the official code takes the mean of a batch: image i
    depends on nothing but its noise. Where an image has few elements that size scatters, and so the law is biased.
    """

    predictor: Predictor = Predictor.ancestral
    corrections: int = 1
    ratio: float = 0.16
    needs: ClassVar[type[Process]] = PerturbationProcess

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corrections < 0:
            raise ValueError(f"sampler.corrections must be at least 0, got {self.corrections}")
        if not 0 < self.ratio < math.inf:
            raise ValueError(f"sampler.ratio must be positive, got {self.ratio}")

    @torch.no_grad()
    def __call__(
        self,
        diffusion: Diffusion[PerturbationProcess],
        shape: Sequence[int],
        noise: Noise,
        condition: Condition = None,
    ) -> Images:
        process = required(diffusion.process, PerturbationProcess, "sampler=predictor_corrector")
        x = process.prior(noise, shape)
        for t, s in pairwise(respaced(process.steps, self.steps)):
            law = self.predicted(process, x, diffusion.x_0(x, t, condition, self.clip), t, s)
            x = law.draw(noise, Purpose.REVERSE, shape, step=t) if s > 0 else law.mode
            for number in range(self.corrections if s > 0 else 0):
                z = noise.normal(Purpose.CORRECTOR, shape, step=s * self.corrections + number)
                x = self.corrected(process, x, diffusion.score(x, s, condition), z, s)
        return x

    def predicted(self, process: PerturbationProcess, x_t: Images, x_0: Images, t: int, s: int) -> Gaussian:
        """The law of x_s, where x_t = a x_s + sqrt(added) eps."""
        a, added = process.signal(t) / process.signal(s), added_variance(process, t, s)
        if self.predictor is Predictor.ancestral:
            kept = process.sigma(s) ** 2 / process.sigma(t) ** 2
            mean = per_image(a * kept, x_t) * x_t
            mean = mean + per_image(process.signal(s) * added / process.sigma(t) ** 2, x_t) * x_0
            return Gaussian(mean, per_image((kept * added).sqrt(), x_t))
        score = (process.marginal(x_0, t).mean - x_t) / per_image(process.sigma(t) ** 2, x_t)
        return Gaussian(per_image(2 - a, x_t) * x_t + per_image(added, x_t) * score, per_image(added.sqrt(), x_t))

    def corrected(self, process: PerturbationProcess, x: Images, score: Images, z: Images, t: int) -> Images:
        """A Langevin step at t, of size 2 alpha_t (r ‖z‖ / ‖score‖)² (Algorithms 4 and 5)."""
        kept = process.signal(t) ** 2 / process.signal(t - 1) ** 2
        size = 2 * per_image(kept, x) * (self.ratio * norm(z) / norm(score)) ** 2
        return x + size * score + (2 * size).sqrt() * z


def added_variance(process: PerturbationProcess, t: int, s: int) -> Float64[Tensor, ""]:
    """Of the noise that comes between s and t: beta_t for s = t - 1, or sigma_t² - sigma_s² on the ladder."""
    a = process.signal(t) / process.signal(s)
    return process.sigma(t) ** 2 - a**2 * process.sigma(s) ** 2


def norm(x: Images) -> Float[Tensor, "B 1 1 1"]:
    """The length of each image as a vector."""
    length: Tensor = torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
    return length
