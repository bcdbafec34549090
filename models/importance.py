"""The probability of data, estimated along forward trajectories (Sohl-Dickstein et al. 2015, section 2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from models.bound import per_sample
from models.diffusion import Chain, Condition
from models.noise import Noise, Purpose
from models.processes import Images

COPY_BITS = 20  # of the noise's index, for the number of the trajectory


@dataclass(frozen=True)
class LogProbability:
    """ln p(x_0) of each image, in nats, and the standard error of that logarithm.

    effective: how many trajectories of equal weight the estimate is worth; of few, neither number can be trusted.
    """

    value: Float[Tensor, " B"]
    error: Float[Tensor, " B"]
    effective: Float[Tensor, " B"]


@torch.no_grad()
def log_probability(
    chain: Chain, x_0: Images, noise: Noise, trajectories: int, condition: Condition = None
) -> LogProbability:
    """p(x_0) = E_q[p(x_T) Π_t p(x_{t-1} | x_t) / q(x_t | x_{t-1})] over trajectories from x_0 (Eq. 7-9).

    The mean of the weights is unbiased (Jarzynski's equality); its logarithm is too low by half its variance.
    """
    if not 2 <= trajectories < 1 << COPY_BITS:
        raise ValueError(f"trajectories must lie in 2 .. {(1 << COPY_BITS) - 1}, got {trajectories}")
    chain.process.check(x_0)
    logs = torch.stack(
        [log_weight(chain, x_0, copy_of(noise, number), condition) for number in range(trajectories)], dim=1
    )
    value = torch.logsumexp(logs, 1) - math.log(trajectories)
    relative = torch.exp(logs - value[:, None])
    error = relative.std(1) / math.sqrt(trajectories)
    return LogProbability(value, error, trajectories / relative.square().mean(1))


def log_weight(chain: Chain, x_0: Images, noise: Noise, condition: Condition) -> Float[Tensor, " B"]:
    """ln p(x_T) Π_t p(x_{t-1} | x_t) / q(x_t | x_{t-1}) of one trajectory from each x_0 (Eq. 9)."""
    process, shape = chain.process, x_0.shape[1:]
    x_s, total = x_0, torch.zeros(len(x_0), dtype=x_0.dtype, device=x_0.device)
    for t in range(1, process.steps + 1):
        forward = process.transition(x_s, t, t - 1)
        x_t = forward.draw(noise, Purpose.FORWARD, shape, step=t).to(x_0.dtype)
        backward = chain.reverse(x_t, t, t - 1, condition)
        total = total + per_sample(backward.log_prob(x_s) - forward.log_prob(x_t))
        x_s = x_t
    return total + per_sample(process.stationary(x_s).log_prob(x_s))


def copy_of(noise: Noise, number: int) -> Noise:
    """Independent noise for the same images: trajectory `number` of each."""
    return replace(noise, index=noise.index << COPY_BITS | number)
