"""The Fréchet distance between two Gaussians (Dowson & Landau 1982): what FID is, given Inception's features."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from trainer.metrics.moments import Moments


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|² + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), with the root through symmetric matrices only.

    tr (C_a C_b)^(1/2) is the sum of the roots of the eigenvalues of the symmetric C_a^(1/2) C_b C_a^(1/2), so no
    root of an unsymmetric matrix, with its imaginary parts, is ever taken.
    """
    root = symmetric_root(a.covariance)
    eigenvalues = torch.linalg.eigvalsh(root @ b.covariance @ root)
    cross = eigenvalues.clamp(min=0).sqrt().sum()
    gap = (a.mean - b.mean).square().sum()
    return float(gap + a.covariance.trace() + b.covariance.trace() - 2 * cross)


def symmetric_root(matrix: Float64[Tensor, "D D"]) -> Float64[Tensor, "D D"]:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Float64[Tensor, "D D"] = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root
