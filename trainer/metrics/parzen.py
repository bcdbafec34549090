"""The Parzen-window estimate of a log-likelihood (Breuleux et al. 2011): Sohl-Dickstein et al. 2015, Table 2.

Images as points of [0, 1]^D; around each sample lies a Gaussian window, and the mean of the windows is a density.
It says little of a model in so many dimensions (Theis et al. 2016), and is here because published tables have it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

WIDTHS = torch.logspace(-2, 0, 41, dtype=torch.float64)  # of the window, on the scale of pixels in [0, 1]
ROWS = 256  # of the matrix of distances, at a time


def parzen_window(samples: UInt8[Tensor, "N C H W"], held_out: UInt8[Tensor, "M C H W"]) -> dict[str, float]:
    """The mean of log2 p over held-out images, its standard error, and the window's width.

    The width is the one under which every other held-out image is likeliest; the rest are scored by it.
    """
    if len(held_out) < 4:
        raise ValueError(
            f"a Parzen window is chosen and scored on at least 4 held-out images, got {len(held_out)}"
        )
    centres, choosing, scored = (points(part) for part in (samples, held_out[::2], held_out[1::2]))
    likelihood = log_likelihood(centres, choosing, WIDTHS).mean(1)
    width = WIDTHS[likelihood.argmax()]
    bits = log_likelihood(centres, scored, width[None])[0] / math.log(2)
    return {
        "parzen_bits": float(bits.mean()),
        "parzen_standard_error": float(bits.std()) / math.sqrt(len(bits)),
        "parzen_width": float(width),
    }


def log_likelihood(
    centres: Float64[Tensor, "N D"], x: Float64[Tensor, "M D"], widths: Float64[Tensor, " W"]
) -> Float64[Tensor, "W M"]:
    """ln of the mean over n of N(x; centre_n, width² I), for each width."""
    constant = math.log(len(centres)) + x.shape[1] * (widths.log() + math.log(2 * math.pi) / 2)
    parts = []
    for rows in x.split(ROWS):
        exponent = -0.5 * torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        parts.append(torch.stack([torch.logsumexp(exponent / width**2, 1) for width in widths]))
    return torch.cat(parts, 1) - constant[:, None]


def points(images: UInt8[Tensor, "N C H W"]) -> Float64[Tensor, "N D"]:
    """Images as points of [0, 1]^D."""
    return images.flatten(1).double() / 255
