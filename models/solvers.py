"""Samplers that solve the probability-flow equation to second order: good images in tens of evaluations.

Both write x_t = alpha_t x_0 + sigma_t eps, alpha_t = sqrt(alpha-bar_t), sigma_t = sqrt(1 - alpha-bar_t). They
visit T, then even strides down to t = 1, then 0: the last jump, over which the noise ends, keeps its length
however many steps there are, and so does its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

from models.diffusion import Condition, Diffusion
from models.noise import Noise
from models.processes import GaussianProcess, Images
from models.samplers import ReverseChain, respaced

Scalar = Float64[Tensor, ""]


@dataclass
class Heun(ReverseChain):
    """Heun's method along the lines of x/alpha over sigma/alpha (Karras et al. 2022, Alg. 1).

    steps: each is two evaluations of the network, but the last is one.
    """

    steps: int = 18

    @torch.no_grad()
    def __call__(
        self, diffusion: Diffusion, shape: Sequence[int], noise: Noise, condition: Condition = None
    ) -> Images:
        process = diffusion.process
        if float(process.alpha_bar(process.steps)) <= 0:
            raise ValueError(
                f"sampler=heun divides by sqrt(alpha-bar_T), which is 0 under the schedule "
                f"{type(process.schedule).__name__}; choose another sampler or schedule"
            )
        x = process.prior(noise, shape)
        for t, s in pairwise(down_to_the_first(process.steps, self.steps)):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = levels(process, t), levels(process, s)
            x_0 = diffusion.x_0(x, t, condition, self.clip)
            here = process.epsilon(x, x_0, t)
            x = alpha_s * x_0 + sigma_s * here
            if s > 0:
                there = process.epsilon(x, diffusion.x_0(x, s, condition, self.clip), s)
                x = x + (sigma_s - alpha_s * sigma_t / alpha_t) / 2 * (there - here)
        return x


@dataclass
class DpmSolver2M(ReverseChain):
    """DPM-Solver++(2M): x̂_0 extrapolated in log(alpha/sigma) from two steps (Lu et al. 2022b, Alg. 2)."""

    steps: int = 20

    @torch.no_grad()
    def __call__(
        self, diffusion: Diffusion, shape: Sequence[int], noise: Noise, condition: Condition = None
    ) -> Images:
        process = diffusion.process
        x, before = process.prior(noise, shape), None
        for t, s in pairwise(down_to_the_first(process.steps, self.steps)):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = levels(process, t), levels(process, s)
            x_0 = diffusion.x_0(x, t, condition, self.clip)
            h = torch.log(alpha_s / sigma_s) - torch.log(alpha_t / sigma_t)
            data = x_0 if before is None or s == 0 else x_0 + h / before[1] / 2 * (x_0 - before[0])
            x = sigma_s / sigma_t * x - alpha_s * torch.expm1(-h) * data
            before = x_0, h
        return x


def levels(process: GaussianProcess, t: int) -> tuple[Scalar, Scalar]:
    """alpha_t and sigma_t."""
    a_t = process.alpha_bar(t)
    return a_t.sqrt(), (1 - a_t).sqrt()


def down_to_the_first(total: int, steps: int) -> list[int]:
    """T, even strides down to 1, and 0, in `steps` steps (0: all of them)."""
    count = len(respaced(total, steps)) - 1
    above = respaced(total - 1, count - 1) if count > 1 else [total - 1]
    return [*(1 + t for t in above), 0]
