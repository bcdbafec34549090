"""Readouts that depend on t: how a network that does not see the time answers differently at each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.networks.initialization import StartsItself


@dataclass
class ReadoutConfig:
    """bumps: how many bump functions of t each readout is a sum of; 0 gives every t a readout of its own."""

    bumps: int = 0

    def __post_init__(self) -> None:
        if self.bumps < 0 or self.bumps == 1:
            raise ValueError(f"network.readout.bumps must be 0 or at least 2, got {self.bumps}")

    def build(self, hidden: int, outputs: int, steps: int) -> Readout:
        """The readout of `hidden` units to `outputs` numbers."""
        return (
            BumpReadout(hidden, outputs, steps, self.bumps) if self.bumps else StepReadout(hidden, outputs, steps)
        )


class Readout(StartsItself, nn.Module, ABC):
    """(h [B, …, hidden], t [B]) → [B, …, outputs], linear in h. Starts as 0, where p is the forward kernel.

    Between B and hidden there may be places, such as pixels, which all have the image's one t.
    """

    def __init__(self, parts: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, hidden, outputs))
        self.bias = nn.Parameter(torch.empty(parts, outputs))

    def start(self, kind: str, uniform: Tensor) -> Tensor:
        return torch.zeros_like(uniform)

    def forward(
        self, h: Float[Tensor, "B *places hidden"], t: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B *places outputs"]:
        weight, bias = self.at(t)
        out = torch.baddbmm(bias[:, None], h.reshape(len(h), -1, h.shape[-1]), weight)
        return out.reshape(*h.shape[:-1], -1)

    @abstractmethod
    def at(self, t: Int64[Tensor, " B"]) -> tuple[Float[Tensor, "B hidden outputs"], Float[Tensor, "B outputs"]]:
        """The weight and the bias that each image's h meets."""


class StepReadout(Readout):
    """A linear readout for each t, independent of all others (Sohl-Dickstein et al. 2015, App. D.1)."""

    def __init__(self, hidden: int, outputs: int, steps: int) -> None:
        super().__init__(steps, hidden, outputs)

    def at(self, t: Int64[Tensor, " B"]) -> tuple[Float[Tensor, "B hidden outputs"], Float[Tensor, "B outputs"]]:
        return self.weight[t - 1], self.bias[t - 1]


class BumpReadout(Readout):
    """Σ_j y_j g_j(t), a smooth course in t of linear readouts y_j (Sohl-Dickstein et al. 2015, Eq. 62)."""

    def __init__(self, hidden: int, outputs: int, steps: int, bumps: int) -> None:
        super().__init__(bumps, hidden, outputs)
        self.steps, self.bumps = steps, bumps

    def at(self, t: Int64[Tensor, " B"]) -> tuple[Float[Tensor, "B hidden outputs"], Float[Tensor, "B outputs"]]:
        g = bump_functions(t, self.steps, self.bumps)
        return torch.tensordot(g, self.weight, dims=1), g @ self.bias


def bump_functions(t: Int64[Tensor, " B"], steps: int, bumps: int) -> Float[Tensor, "B bumps"]:
    """g_j(t) ∝ exp(-(t - tau_j)² / 2w²), summing to 1 over j (Sohl-Dickstein et al. 2015, Eq. 63).

    The centres tau_j are spaced evenly over 1..T, and w is half their distance, as in the official code.
    """
    place = (t - 1).float()[:, None] * ((bumps - 1) / max(1, steps - 1))
    distance = place - torch.arange(bumps, device=t.device)
    return torch.softmax(-2 * distance**2, dim=1)
