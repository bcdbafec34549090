"""The files of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.checkpoints.tensor_file import BLOCK, BYTES
from trainer.engines.engine import MOMENTS
from trainer.engines.layout import FLOAT32, Layout
from trainer.plans.weights import Weights

# Of the manifest's text, about: a chunk with its first checksum, each further checksum of it, and a file.
CHUNK_BYTES, CHECKSUM_BYTES, FILE_BYTES = 62, 36, 90


@dataclass(frozen=True)
class Saved:
    """files: one for each rank, and the manifest. total, fullest: bytes of the tensors, and of the largest file's.

    chunks: pieces of tensors that the manifest lists. manifest: about its bytes, all read at resumption.
    """

    files: int
    total: int
    fullest: int
    chunks: int
    manifest: int


def saved(layout: Layout, weights: Weights, averages: int) -> Saved:
    """Weights, moments and averages in fp32. What several ranks hold is written once, in equal parts by each."""
    kinds = 1 + len(MOMENTS) + averages
    replicas = layout.ranks // layout.state.ways
    fullest = -(-layout.state.count(weights.shapes) // replicas)
    total = FLOAT32 * kinds * weights.count
    chunks = kinds * layout.state.pieces(weights.shapes) + 1  # the number of steps is one
    listed = CHUNK_BYTES * chunks + FILE_BYTES * layout.ranks + CHECKSUM_BYTES * (total // (BLOCK * BYTES))
    return Saved(layout.ranks + 1, total, FLOAT32 * kinds * fullest, chunks, listed)
