"""How much a run knows about its data, in bits: the bound K on fresh samples, by its terms."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from models.bound import BIT, bound, check_moments
from models.diffusion import Chain
from models.noise import Noise
from models.pixels import as_data
from models.processes import MarkovProcess, required
from trainer.run import Run

# Samples from here on are never trained on: no run counts so many images.
HELD_OUT = 1 << 48


def drawn(run: Run, start: int, count: int) -> tuple[Float[Tensor, "count C H W"], Int64[Tensor, " count"]]:
    """`count` data of the run's stream from position `start` on, as the model sees them, and their positions."""
    with run.data.build(run.run.seed).open(start) as batches:
        parts, index = [], []
        for part in batches:
            parts.append(as_data(part.x, run.pixels))
            index.append(part.index)
            if sum(map(len, parts)) >= count:
                break
    return torch.cat(parts)[:count], torch.cat(index)[:count]


@torch.no_grad()
def evaluate_bound(run: Run, diffusion: Chain, device: torch.device, count: int, batch: int) -> dict[str, object]:
    """K and K - L_null over `count` samples that training did not see, with the standard error of the mean.

    Raises ValueError where K would be no bound, before the network is called.
    """
    x_0, positions = (part.to(device) for part in drawn(run, HELD_OUT, count))
    x_0 = x_0.double()
    check_moments(required(run.process, MarkovProcess, "the bound K"), x_0)
    parts = [
        bound(diffusion, x_0[first : first + batch], Noise(run.run.seed, positions[first : first + batch]))
        for first in range(0, count, batch)
    ]
    bits, over_null = torch.cat([part.bits for part in parts]), torch.cat([part.over_null for part in parts])
    kl = torch.cat([part.kl for part in parts]).mean(0) / BIT
    return {
        "metric": "K, a lower bound on log2 p(x_0), in bits a sample",
        "images": count,
        "K": float(bits.mean()),
        "K_standard_error": float(bits.std()) / math.sqrt(count),
        "K_minus_null": float(over_null.mean()),
        "K_per_element": float(bits.mean()) / x_0[0].numel(),
        "kl_by_quarter_of_t": [float(part.sum()) for part in kl.chunk(4)],
    }
