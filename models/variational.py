"""Objectives that train on the variational bound, where SimpleLoss reweights it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.diffusion import Condition, Diffusion
from models.distributions import Gaussian
from models.likelihood import Decoder, Likelihood, PerImage, prior_term
from models.noise import Noise, Purpose
from models.objectives import Objective, Terms
from models.parameterizations import Variance
from models.processes import GaussianProcess, Images


@dataclass
class VariationalBound(Objective):
    """L_vlb in bits for each dimension, by its term at one uniform t (Ho et al. 2020, Eq. 5).

    The loss is weight · (T · L_{t-1} + L_T) / (D ln 2), whose mean over t and noise is weight times the bound. At
    weight = 1 it is comparable with `launch.bits`; the official code minimises one term, weight = 1 / T, which
    matters to the clipping of gradients alone.
    """

    decoder: Decoder = Decoder.bins
    weight: float = 1.0

    def __post_init__(self) -> None:
        positive("objective.weight", self.weight)

    def __call__(self, diffusion: Diffusion, x_0: Images, noise: Noise, condition: Condition = None) -> Terms:
        process = diffusion.process
        t = process.times(noise)
        x_t = process.marginal(x_0, t).sample(noise.normal(Purpose.EPSILON, x_0.shape[1:]))
        law = diffusion.reverse(x_t, t, t - 1, condition)
        term = Likelihood(self.decoder).term(process, law, x_0, x_t, t, t - 1)
        return Terms(loss=self.weight * bound_from_one_term(process, term, x_0), t=t)


@dataclass
class Hybrid(Objective):
    """L_simple + weight · L_vlb (Nichol & Dhariwal 2021, Eq. 16), L_vlb as in VariationalBound.

    The bound trains the variance alone: its gradient does not reach the mean.
    """

    weight: float = 0.001
    decoder: Decoder = Decoder.bins
    variances = (Variance.learned,)

    def __post_init__(self) -> None:
        positive("objective.weight", self.weight)

    def __call__(self, diffusion: Diffusion, x_0: Images, noise: Noise, condition: Condition = None) -> Terms:
        process = diffusion.process
        t = process.times(noise)
        epsilon = noise.normal(Purpose.EPSILON, x_0.shape[1:])
        x_t = process.marginal(x_0, t).sample(epsilon)
        said = diffusion.predict(x_t, t, condition)
        target = diffusion.parameterization.target(process, x_0, x_t, epsilon, t)
        simple = (said.output - target).square().flatten(1).mean(1)
        law = diffusion.reverse_given(said, x_t, t, t - 1)
        term = Likelihood(self.decoder).term(process, Gaussian(law.mean.detach(), law.std), x_0, x_t, t, t - 1)
        return Terms(loss=simple + self.weight * bound_from_one_term(process, term, x_0), t=t)


def bound_from_one_term(process: GaussianProcess, term: PerImage, x_0: Images) -> PerImage:
    """An unbiased estimate of the bound, in bits for each dimension, from the term at a uniform t, in nats."""
    nats = process.steps * term + prior_term(process, x_0)
    return nats / (math.log(2) * x_0[0].numel())


def positive(name: str, value: float) -> None:
    """Raises ValueError unless value > 0."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
