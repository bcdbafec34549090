"""Bits for each dimension: the variational bound of real images, its terms, and the rate-distortion curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from data_pipeline.config import DataConfig
from data_pipeline.dataset import Dataset
from data_pipeline.shards import ShardSet
from models.diffusion import Diffusion
from models.ledger import LogLikelihood
from models.likelihood import Bound, Likelihood
from models.noise import Noise
from models.parameterizations import Parameterization
from models.pixels import PixelRange, to_unit
from models.processes import GaussianProcess, required
from trainer.metrics.evaluation import read_labels
from trainer.run import Run

ROWS = 10  # of the rate-distortion curve, as in Table 4 of Ho et al. 2020


def check_decoder(run: Run, what: str) -> None:
    """Raises ValueError for a run that has no p(x_0 | x_1) of 8-bit pixels, which `what` is of."""
    if not (run.data.pixels and isinstance(run.parameterization, Parameterization)):
        raise ValueError(
            f"{what} is of images under a chain that goes through x̂_0, got data={type(run.data).__name__} and "
            f"parameterization={type(run.parameterization).__name__}"
        )
    required(run.process, GaussianProcess, what)
    if run.pixels != PixelRange.signed:
        raise ValueError(
            f"{what} is of 256 values in [-1, 1], from pixels.mean=127.5 and pixels.deviation=127.5, got "
            f"{run.pixels}"
        )


def first_images(config: DataConfig, shards: str, count: int) -> UInt8[Tensor, "N C H W"]:
    """The first `count` images of some shards (0: all). Raises ValueError where there are not so many."""
    dataset = Dataset(ShardSet.open(shards, config.access), replace(config, shards=shards))
    if count > dataset.shards.size:
        raise ValueError(f"count must be at most {dataset.shards.size}, the images in {shards}, got {count}")
    images = [dataset.image(number, 0) for number in range(count or dataset.shards.size)]
    dataset.close()
    return torch.from_numpy(np.stack(images))


def first_labels(run: Run, shards: str, count: int) -> Int64[Tensor, " count"] | None:
    """The classes of the first `count` images of some shards, where the run's network knows any."""
    return read_labels(run.data, shards)[:count] if run.network.known_classes else None


def bound_of(
    diffusion: Diffusion,
    likelihood: Likelihood,
    images: UInt8[Tensor, "N C H W"],
    noise: Noise,
    batch: int,
    progress: Callable[[int], object] = lambda done: None,
    times: Sequence[int] = (),
    labels: Int64[Tensor, " N"] | None = None,
) -> Bound:
    """The bound of each image, in float64 but for the network; `progress` hears of each batch that is done.

    times: at which the chain is seen, from T to 0; none for all. labels: of the images, for a network of classes.

    In float32 the terms of late steps, of 1e-9 nats a dimension, would drown in rounding.
    """
    parts = []
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        x_0 = to_unit(images[rows].to(noise.index.device)).double()
        given = None if labels is None else labels[rows].to(x_0.device)
        parts.append(likelihood.bound(diffusion, x_0, noise[rows], given, times))
        progress(len(x_0))
    terms, errors = (
        torch.cat([getattr(part, name) for part in parts]).cpu() for name in ("terms", "squared_error")
    )
    return Bound(terms, errors)


def bits_per_dim(bound: Bound, shape: tuple[int, int, int]) -> dict[str, object]:
    """Totals and terms in bits for each dimension, Table 4's rows (Ho et al. 2020), and the ledger's units.

    The ledger's gain is over the uniform law of 8 bits, as pixels have no Gaussian prior.
    """
    dimensions = math.prod(shape)
    to_bits = 1 / (math.log(2) * dimensions)
    total, rate, rmse = bound.total * to_bits, bound.rate().mean(0) * to_bits, bound.rmse()
    steps = len(rmse)
    sent = [max(1, steps * row // ROWS) for row in range(1, ROWS + 1)]
    mass = LogLikelihood(-float(bound.total.mean()), dimensions, shape[0])
    return {
        "metric": "bits/dim (upper bound on -log2 p)",
        "images": len(total),
        "bits_per_dim": float(total.mean()),
        "standard_error": float(total.std() / len(total) ** 0.5) if len(total) > 1 else None,
        "prior": float(bound.prior.mean()) * to_bits,
        "rate": float(rate[0]),
        "distortion": float(bound.decoder.mean()) * to_bits,
        "rmse": float(rmse[0]),
        "terms": (bound.terms.mean(0) * to_bits).tolist(),
        "rate_distortion": [
            {"reverse_steps": count, "rate": float(rate[steps - count]), "rmse": float(rmse[steps - count])}
            for count in sorted(set(sent), reverse=True)
        ],
        "ledger": mass.row(-dimensions * math.log(256)),
    }
