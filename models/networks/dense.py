"""The small networks of Sohl-Dickstein et al. 2015, App. D.1: shared hidden units, and a readout by t."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.networks.config import NetworkConfig
from models.networks.initialization import StartsItself
from models.networks.layers import Linear
from models.networks.readout import Readout, ReadoutConfig


@dataclass
class RadialBasisConfig(NetworkConfig):
    """units: hidden units, each with a centre and a width (16 for the swiss roll, App. D.1.1)."""

    units: int = 16
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)

    def __post_init__(self) -> None:
        if self.units < 1:
            raise ValueError(f"network.units must be at least 1, got {self.units}")

    def build(self, image_channels: int, resolution: int, outputs: int = 1, steps: int = 0) -> Dense:
        size = image_channels * resolution**2
        return Dense(RadialBasis(size, self.units), self.readout.build(self.units, outputs * size, steps))


@dataclass
class MlpConfig(NetworkConfig):
    """widths: of the hidden layers, each followed by a sigmoid (three of 50 for the heartbeat, App. D.1.2)."""

    widths: list[int] = field(default_factory=lambda: [50, 50, 50])
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)

    def __post_init__(self) -> None:
        self.widths = list(self.widths)
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"network.widths must be one or more positive numbers, got {self.widths}")

    def build(self, image_channels: int, resolution: int, outputs: int = 1, steps: int = 0) -> Dense:
        size = image_channels * resolution**2
        return Dense(Sigmoids([size, *self.widths]), self.readout.build(self.widths[-1], outputs * size, steps))


class Dense(nn.Module):
    """(x_t [B, C, H, W], t [B] in 1..T) → output [B, outputs · C, H, W]; only the readout sees t."""

    def __init__(self, hidden: nn.Module, readout: Readout) -> None:
        super().__init__()
        self.hidden, self.readout = hidden, readout

    def forward(
        self, x: Float[Tensor, "B C H W"], t: Int64[Tensor, " B"], condition: Tensor | None = None
    ) -> Float[Tensor, "B O H W"]:
        if condition is not None:
            raise ValueError("network=rbf and network=mlp take no condition; set data.labels=false")
        weight = self.readout.weight
        out: Tensor = self.readout(self.hidden(x.flatten(1).to(weight.dtype)), t)
        return out.reshape(len(x), -1, *x.shape[2:])

    def stages(self) -> Iterator[nn.Module]:
        """The hidden units: the one part that could be checkpointed, sharded or compiled as a unit."""
        yield self.hidden


class RadialBasis(StartsItself, nn.Module):
    """Normalised radial basis functions: units_k ∝ exp(-‖x - c_k‖² / 2w_k²), summing to 1 over k."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.empty(units, inputs))
        self.log_widths = nn.Parameter(torch.empty(units))

    def start(self, kind: str, uniform: Tensor) -> Tensor:
        """Centres over the cube [-2, 2]^n, where standardised data lies; widths of half the cells of a grid."""
        if kind == "centres":
            return 4 * uniform - 2
        units, inputs = self.centres.shape
        return torch.full_like(uniform, 2 * units ** (-1 / inputs)).log()

    def forward(self, x: Float[Tensor, "B inputs"]) -> Float[Tensor, "B units"]:
        distance = (x[:, None] - self.centres).square().sum(2)
        return torch.softmax(-0.5 * distance * torch.exp(-2 * self.log_widths), dim=1)


class Sigmoids(nn.Sequential):
    """Linear layers, each followed by a sigmoid."""

    def __init__(self, widths: list[int]) -> None:
        # A sigmoid's slope is at most 1/4: with sixteen times the variance a signal neither dies out nor grows.
        pairs = pairwise(widths)
        layers = [layer for i, o in pairs for layer in (Linear(i, o, init_scale=16.0), nn.Sigmoid())]
        super().__init__(*layers)
