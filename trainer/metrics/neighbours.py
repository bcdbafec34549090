"""The data nearest to each sample: whether a model draws what it was shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Features = Callable[[Float[Tensor, "n C H W"]], Float[Tensor, "n D"]]


@dataclass(frozen=True)
class Nearest:
    """For each query the rows of the pool nearest to it, and how far off they are, rising."""

    rows: Int64[Tensor, "N count"]
    distances: Float[Tensor, "N count"]


def nearest(
    queries: Float[Tensor, "N C H W"],
    pool: Float[Tensor, "M C H W"],
    count: int,
    features: Features,
    chunk: int = 10_000,
) -> Nearest:
    """The `count` nearest by Euclidean distance between features, found a chunk of the pool at a time.

    Raises ValueError where the pool holds fewer.
    """
    if not 1 <= count <= len(pool):
        raise ValueError(
            f"nearest neighbours: count must lie in 1 .. {len(pool)}, the images there are, got {count}"
        )
    of_queries = features(queries).double()
    rows = torch.empty(len(queries), 0, dtype=torch.int64)
    distances = torch.empty(len(queries), 0, dtype=torch.float64)
    for first in range(0, len(pool), chunk):
        part = features(pool[first : first + chunk]).double()
        apart = torch.cdist(of_queries, part, compute_mode="donot_use_mm_for_euclid_dist")
        here = torch.arange(first, first + len(part)).expand(len(queries), -1)
        distances, order = torch.cat((distances, apart), 1).sort(dim=1, stable=True)
        rows = torch.cat((rows, here), 1).gather(1, order)[:, :count]
        distances = distances[:, :count]
    return Nearest(rows, distances)
