"""Images from a diffusion: image number i is the same picture whatever the batch it is drawn in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.classes import Assignment
from models.diffusion import Chain
from models.noise import Noise
from models.pixels import to_bytes
from models.samplers import Sampler

# Matrix products of fewer rows take other kernels, whose sums are rounded in another order; from 16 rows on, the
# same row gives the same bits in a batch of any size (tested), so batches are filled up to a multiple of this.
GRANULE = 16


@dataclass(frozen=True)
class Generator:
    """The images of (diffusion, sampler, seed, classes), by number; without classes, they have no condition."""

    diffusion: Chain
    sampler: Sampler
    shape: tuple[int, int, int]
    seed: int
    device: torch.device
    classes: Assignment | None = None

    def images(self, start: int, count: int) -> UInt8[Tensor, "count C H W"]:
        """Images number `start` to `start + count - 1` as bytes, on the CPU, drawn as one batch."""
        return to_bytes(self.samples(start, count), self.diffusion.pixels)

    def samples(self, start: int, count: int) -> Float[Tensor, "count C H W"]:
        """The same in the range of the data, as they were drawn."""
        padded = -(-count // GRANULE) * GRANULE
        index = torch.arange(start, start + padded, device=self.device)
        condition = None if self.classes is None else self.classes(index)
        x = self.sampler(self.diffusion, self.shape, Noise(self.seed, index), condition)
        return x[:count].cpu()
