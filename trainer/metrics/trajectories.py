"""What forward trajectories say of a run, in bits: p(x_0) itself, and how uncertain its reverse steps are."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from models.bound import BIT, entropy_bounds
from models.diffusion import Chain
from models.importance import log_probability
from models.noise import Noise
from models.processes import MarkovProcess, required


def importance(chain: Chain, x_0: Float64[Tensor, "N C H W"], seed: int, trajectories: int) -> dict[str, object]:
    """The mean of log2 p(x_0), estimated along this many trajectories each (Sohl-Dickstein et al. 2015, Eq. 9).

    The error is that of the mean over the data by the trajectories alone. Where few of them outweigh all others
    (`effective_trajectories`, the median over the data), the estimate is too low, and the error too small.
    """
    found = log_probability(chain, x_0, Noise(seed, torch.arange(len(x_0), device=x_0.device)), trajectories)
    return {
        "importance_log2_p": float(found.value.mean()) / BIT,
        "importance_error": float(found.error.square().sum().sqrt()) / len(x_0) / BIT,
        "effective_trajectories": float(found.effective.median()),
        "importance_count": len(x_0),
    }


def reverse_entropies(chain: Chain, x_0: Float64[Tensor, "N C H W"], rows: int = 10) -> list[dict[str, float]]:
    """The least and the most that H(X_{t-1} | X_t) can be, at some times (Sohl-Dickstein et al. 2015, Eq. 24)."""
    process = required(chain.process, MarkovProcess, "the entropy of a reverse step")
    times = sorted({math.ceil(process.steps * row / rows) for row in range(1, rows + 1)} - {1})
    bounds = [(t, *entropy_bounds(process, x_0, t)) for t in times]
    return [{"t": t, "least_bits": float(low) / BIT, "most_bits": float(high) / BIT} for t, low, high in bounds]
