"""The files of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.engines.engine import MOMENTS
from trainer.engines.layout import FLOAT32, Layout
from trainer.plans.weights import Weights


@dataclass(frozen=True)
class Saved:
    """files: one for each rank, and the manifest. total, fullest: bytes of all of them, and of the largest."""

    files: int
    total: int
    fullest: int


def saved(layout: Layout, weights: Weights, averages: int) -> Saved:
    """Weights, moments and averages in fp32. What several ranks hold is written once, in equal parts by each."""
    kinds = 1 + len(MOMENTS) + averages
    replicas = layout.ranks // layout.state.ways
    fullest = -(-layout.state.count(weights.shapes) // replicas)
    return Saved(layout.ranks + 1, FLOAT32 * kinds * weights.count, FLOAT32 * kinds * fullest)
