"""Bits for each dimension by the probability flow: the likelihood, where the variational bound is a bound."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from models.diffusion import Diffusion
from models.ledger import PIXELS, LogLikelihood, Unit
from models.noise import Noise, Purpose
from models.pixels import to_unit
from models.probability_flow import ProbabilityFlow


def flow_bits(
    flow: ProbabilityFlow,
    diffusion: Diffusion,
    images: UInt8[Tensor, "N C H W"],
    noise: Noise,
    batch: int,
    progress: Callable[[int], object] = lambda done: None,
    labels: Int64[Tensor, " N"] | None = None,
) -> dict[str, object]:
    """The mean and its standard error, of images with uniform noise of one pixel value's width.

    The noise makes a density of their masses, whose likelihood is a lower bound of theirs (Theis et al. 2016).
    """
    dimensions, channels = images[0].numel(), images.shape[1]
    found = []
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        x_0 = to_unit(images[rows].to(noise.index.device)).double()
        spread = noise[rows].uniform(Purpose.DEQUANTIZE, images.shape[1:]) - 0.5
        given = None if labels is None else labels[rows].to(x_0.device)
        found.append(flow(diffusion, x_0 + PIXELS * spread, noise[rows], given).cpu())
        progress(len(x_0))
    nats = torch.cat(found)
    of_one = torch.tensor(
        [LogLikelihood(float(one), dimensions, channels, PIXELS).stated_in(Unit.bits_per_dim) for one in nats]
    )
    return {
        "flow_bits_per_dim": float(of_one.mean()),
        "flow_standard_error": float(of_one.std()) / len(of_one) ** 0.5 if len(of_one) > 1 else None,
    }
