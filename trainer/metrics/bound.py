"""How much a run knows about its data, in bits: the bound K on fresh samples, by its terms."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from data_pipeline.config import DataConfig
from models.bound import BIT, Bound, bound, check_moments
from models.diffusion import Chain
from models.ledger import LogLikelihood
from models.noise import Noise
from models.objectives import LowerBound
from models.pixels import as_data
from models.processes import Images, MarkovProcess, required
from trainer.metrics.bits_per_dim import first_images
from trainer.metrics.trajectories import importance, reverse_entropies
from trainer.run import Run

# Samples from here on are never trained on: no run counts so many images.
HELD_OUT = 1 << 48
WEIGHED = 100  # samples whose probability is estimated along trajectories
METRIC = "K, a lower bound on log2 p(x_0), in bits a sample"
ANY_MOMENTS = "K for any moments, a lower bound on log2 p(x_0), in bits a sample"
DRAWN = 10_000  # samples of drawn data that are scored unless another count is given

Data = tuple[Float[Tensor, "count C H W"], Int64[Tensor, " count"]]


def is_scored_by_bound(run: Run) -> bool:
    """Whether K is what is said of a run: one that was trained on it, or on data that is drawn."""
    return isinstance(run.objective, LowerBound) or not run.data.pixels


def unseen(run: Run, shards: str, count: int) -> Data:
    """Data that training did not see, as the model sees it, and the positions that key its noise.

    That is the first `count` images of `shards` (0: all), or new draws where the run's data is drawn.
    Raises ValueError where there is no such data.
    """
    if not isinstance(run.data, DataConfig):
        return drawn(run, HELD_OUT, count or DRAWN)
    if not shards:
        raise ValueError("held_out must be given: add held_out=… to the command")
    if not run.pixels.dequantised:
        raise ValueError(
            "K is the bound of a density, which bytes do not have; it needs a run with pixels.dequantised=true"
        )
    images = first_images(run.data, shards, count)
    positions = HELD_OUT + torch.arange(len(images))
    return as_data(images, run.pixels, Noise(run.run.seed, positions)), positions


def drawn(run: Run, start: int, count: int) -> Data:
    """The data at `count` positions of the run's stream from `start` on, and the positions."""
    with run.data.build(run.run.seed).open(start) as batches:
        parts, index = [], []
        for part in batches:
            parts.append(as_data(part.x, run.pixels, Noise(run.run.seed, part.index)))
            index.append(part.index)
            if sum(map(len, parts)) >= count:
                break
    return torch.cat(parts)[:count], torch.cat(index)[:count]


@torch.no_grad()
def evaluate_bound(
    run: Run,
    diffusion: Chain,
    device: torch.device,
    data: Data,
    batch: int,
    trajectories: int = 0,
    any_moments: bool = False,
) -> dict[str, object]:
    """The bound and what it has over L_null over the data, with the standard error of the mean, and in every unit.

    trajectories: for each of the first WEIGHED samples, along which p(x_0) itself is estimated; 0 for none.
    any_moments: all is said of the form that holds for any data, K_for_any_moments, and K itself is left out.
    Raises ValueError where K would be no bound and is not left out, before the network is called.
    """
    x_0, positions = data[0].to(device, torch.float64), data[1].to(device)
    process = required(run.process, MarkovProcess, "the bound K")
    if not any_moments:
        check_moments(process, x_0)
    count = len(x_0)
    parts = bounds(diffusion, x_0, Noise(run.run.seed, positions), batch)
    bits, over_null, holding = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("bits", "over_null", "any_moments")
    )
    if any_moments:
        bits, over_null = holding, over_null + holding - bits
    kl = torch.cat([part.kl for part in parts]).mean(0) / BIT
    weighed = importance(diffusion, x_0[:WEIGHED], run.run.seed, trajectories) if trajectories else {}
    return weighed | {
        "metric": ANY_MOMENTS if any_moments else METRIC,
        "images": count,
        "K": None if any_moments else float(bits.mean()),
        "K_standard_error": float(bits.std()) / math.sqrt(count),
        "K_minus_null": float(over_null.mean()),
        "K_for_any_moments": float(holding.mean()),
        "K_per_element": float(bits.mean()) / x_0[0].numel(),
        "kl_by_quarter_of_t": [float(part.sum()) for part in kl.chunk(4)],
        "reverse_entropies": reverse_entropies(diffusion, x_0),
        "ledger": ledger(run, float(bits.mean()) * BIT, float(over_null.mean()) * BIT),
    }


def bounds(diffusion: Chain, x_0: Images, noise: Noise, batch: int) -> list[Bound]:
    """The terms of K of each batch."""
    return [
        bound(diffusion, x_0[first : first + batch], noise[first : first + batch])
        for first in tqdm(range(0, len(x_0), batch), desc="bound", unit="batch", disable=None)
    ]


def ledger(run: Run, nats: float, over_null: float) -> dict[str, float]:
    """K in every unit. Bits for each dimension are of pixels 0..255 where the samples are images."""
    channels, height, width = run.shape
    scale = 1 / run.pixels.deviation if height * width > 1 else 1.0
    return LogLikelihood(nats, channels * height * width, channels, scale).row(nats - over_null)
