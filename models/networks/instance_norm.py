"""Normalization for score networks: instance norm that keeps the means it takes away (Song & Ermon 2019, A.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from models.networks.initialization import StartsItself, normal_of

EPS = 1e-5


class InstanceNormPlus(StartsItself, nn.Module):
    """gamma (instance norm of x + alpha · its channels' means, standardized over the channels) + beta.

    levels: how many sets of gamma, alpha and beta there are: one for each level of noise (NCSN's "conditional
    instance norm++"), or a single one for all of them (NCSNv2).
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.weight = nn.Parameter(torch.empty(levels, 3, channels))

    def start(self, kind: str, uniform: Tensor) -> Tensor:
        """gamma and alpha from N(1, .02²), beta 0."""
        weight = 1 + 0.02 * normal_of(uniform)
        weight[:, 2] = 0
        return weight

    def forward(self, x: Float[Tensor, "B C H W"], t: Int64[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
        level = t - 1 if self.levels > 1 else torch.zeros_like(t)
        gamma, alpha, beta = functional.embedding(level, self.weight.flatten(1)).chunk(3, dim=1)
        means = x.mean((2, 3))
        spread = (means.var(1, keepdim=True) + EPS).sqrt()
        means = alpha * (means - means.mean(1, keepdim=True)) / spread
        h = functional.instance_norm(x, eps=EPS) + means[:, :, None, None]
        return gamma[:, :, None, None] * h + beta[:, :, None, None]


class NoNorm(nn.Module):
    """Where NCSNv2 has no normalization and NCSN has one."""

    def forward(self, x: Float[Tensor, "B C H W"], t: Int64[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
        return x
