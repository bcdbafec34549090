"""How long a compressed file is beside what its chain says it should be."""

from __future__ import annotations

import math

from jaxtyping import UInt8
from torch import Tensor

from models.bound import BIT
from models.likelihood import prior_term
from models.pixels import to_unit
from models.processes import GaussianProcess
from trainer.codec import Transmission
from trainer.compressed import HEADER, Compressed


def compression(
    file: Compressed, sent: Transmission, process: GaussianProcess, images: UInt8[Tensor, "N C H W"]
) -> dict[str, object]:
    """Bits of all images together: what the chain says of them, what the file holds, and the bound of its steps.

    ideal_bits: the sum of the divergences and of the pixels' surprise; overhead is what the file has over it, as a
    share. divergence_bits_bound: what the block code is expected to take at most.

    prior_bits: L_T, which shared noise in place of q(x_T | x_0) leaves out of the file. The file's bits are those
    of the steps, of the pixels, of the header, and what fills the last byte.
    """
    steps, pixels = ([step for step in sent.steps if (step.s == 0) is last] for last in (False, True))
    divergence, length = (sum(getattr(step, name) for step in steps) for name in ("divergence", "length"))
    surprise = sum(step.divergence for step in pixels)
    bits = 8 * (HEADER + file.header.length)
    ideal = divergence + surprise
    return {
        "metric": "bits of a progressively coded file",
        "images": len(images),
        "divergence_bits": divergence,
        "divergence_bits_sent": length,
        "divergence_bits_bound": sum(step.bound for step in steps),
        "pixel_bits": surprise,
        "pixel_bits_sent": sum(step.length for step in pixels),
        "prior_bits": float(prior_term(process, to_unit(images).double()).sum()) / BIT,
        "header_bits": 8 * HEADER,
        "file_bits": bits,
        "ideal_bits": ideal,
        "overhead": bits / ideal - 1 if ideal else math.inf,
        "bits_per_dim": bits / images.numel(),
        **sent.numbers,
        "steps_sent": [vars(step) for step in sent.steps],
    }
