"""The image network of Sohl-Dickstein et al. 2015 (Fig. D.1, App. D.2): multi-scale and dense paths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from models.networks.config import NetworkConfig
from models.networks.layers import Conv2d, Linear, doubled
from models.networks.readout import ReadoutConfig


@dataclass
class MultiScaleConfig(NetworkConfig):
    """Two paths over the image, side by side; what they say of a pixel goes through layers on that pixel alone.

    layers, channels: of the convolutions; 0 layers for no such path. scales: at how many sizes of the image each
    layer convolves, every one half of the last. dense: widths of the hidden layers over the whole image; none for
    no such path. dense_outputs: how many numbers they give each pixel. pixelwise: widths of the layers on each
    pixel, which the readout by t follows. Soft rectifiers and tanh are the paper's; the official code, which
    these sizes are from, has leaky rectifiers and one scale.
    """

    layers: int = 4
    channels: int = 20
    scales: int = 3
    dense: list[int] = field(default_factory=lambda: [500, 500, 500])
    dense_outputs: int = 2
    pixelwise: list[int] = field(default_factory=lambda: [20])
    readout: ReadoutConfig = field(default_factory=lambda: ReadoutConfig(bumps=10))

    def __post_init__(self) -> None:
        self.dense, self.pixelwise = list(self.dense), list(self.pixelwise)
        for name, least in (("layers", 0), ("channels", 1), ("scales", 1), ("dense_outputs", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"network.{name} must be at least {least}, got {getattr(self, name)}")
        if min([*self.dense, *self.pixelwise], default=1) < 1:
            raise ValueError(
                "network.dense and network.pixelwise must be positive numbers, "
                f"got {self.dense} and {self.pixelwise}"
            )
        if not self.layers and not self.dense:
            raise ValueError("network.layers=0 and network.dense=[] leave no path: give one of them")

    def build(self, image_channels: int, resolution: int, outputs: int = 1, steps: int = 0) -> MultiScale:
        if self.layers and resolution % 2 ** (self.scales - 1):
            raise ValueError(
                f"data.resolution must be a multiple of {2 ** (self.scales - 1)}, which network.scales="
                f"{self.scales} halve it to, got {resolution}"
            )
        return MultiScale(self, image_channels, resolution, outputs, steps)


class MultiScale(nn.Module):
    """(x_t [B, C, H, W], t [B] in 1..T) → output [B, outputs · C, H, W]; only the readout sees t."""

    def __init__(
        self, config: MultiScaleConfig, image_channels: int, resolution: int, outputs: int, steps: int
    ) -> None:
        super().__init__()
        self.paths, seen = nn.ModuleList(), 0
        if config.layers:
            self.paths.append(Convolutions([image_channels, *[config.channels] * config.layers], config.scales))
            seen += config.channels
        if config.dense:
            self.paths.append(Connections(image_channels, config.dense, config.dense_outputs, resolution))
            seen += config.dense_outputs
        widths = [seen, *config.pixelwise]
        self.pixelwise = nn.ModuleList([Linear(i, o) for i, o in pairwise(widths)])
        self.readout = config.readout.build(widths[-1], outputs * image_channels, steps)

    def forward(
        self, x: Float[Tensor, "B C H W"], t: Int64[Tensor, " B"], condition: Tensor | None = None
    ) -> Float[Tensor, "B O H W"]:
        if condition is not None:
            raise ValueError("network=multiscale takes no condition; set data.labels=false")
        x = x.to(self.readout.weight.dtype)
        h = torch.cat([path(x) for path in self.paths], dim=1).permute(0, 2, 3, 1)
        for layer in self.pixelwise:
            h = torch.tanh(layer(h))
        out: Tensor = self.readout(h, t).permute(0, 3, 1, 2)
        return out

    def stages(self) -> Iterator[nn.Module]:
        """The units, in the order in which they run: what is checkpointed, sharded or compiled as one."""
        yield from self.paths


class Convolutions(nn.Module):
    """Multi-scale convolutions, each followed by a soft rectifier, log(1 + exp)."""

    def __init__(self, channels: list[int], scales: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ScaledConv(i, o, scales) for i, o in pairwise(channels)])

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O H W"]:
        for layer in self.layers:
            x = functional.softplus(layer(x))
        return x


class Connections(nn.Module):
    """Layers from every pixel to every pixel, each followed by tanh; the last gives each pixel its `outputs`."""

    def __init__(self, image_channels: int, widths: list[int], outputs: int, resolution: int) -> None:
        super().__init__()
        self.outputs = outputs
        ends = [image_channels * resolution**2, *widths, outputs * resolution**2]
        self.layers = nn.ModuleList([Linear(i, o) for i, o in pairwise(ends)])

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O H W"]:
        h = x.flatten(1)
        for layer in self.layers:
            h = torch.tanh(layer(h))
        return h.reshape(len(x), self.outputs, *x.shape[2:])


class ScaledConv(nn.Module):
    """The image pooled to each scale, convolved there and brought back to its size: the sum over the scales."""

    def __init__(self, inputs: int, outputs: int, scales: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([Conv2d(inputs, outputs, init_scale=1 / scales) for _ in range(scales)])

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O H W"]:
        sizes = [x]
        for _ in self.convs[1:]:
            sizes.append(functional.avg_pool2d(sizes[-1], 2))
        coarse = [conv(size) for conv, size in zip(self.convs, sizes, strict=True)]
        total: Tensor = coarse.pop()
        while coarse:
            total = doubled(total) + coarse.pop()
        return total
