"""The RefineNet of NCSN (Song & Ermon 2019, A.1): 30,117,635 parameters for CIFAR-10, 7,638,657 for MNIST."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from models.networks.config import NetworkConfig
from models.networks.initialization import FanInUniform
from models.networks.instance_norm import InstanceNormPlus, NoNorm


class Pooling(Enum):
    """How the chained pooling of a refine block pools. The names are what a config says."""

    average = "average"  # NCSN
    maximum = "maximum"  # NCSNv2


@dataclass
class RefineNetConfig(NetworkConfig):
    """The shape of a RefineNet.

    channels: of the first level; level i has channels · multipliers[i]. dilations: of each level's convolutions; a
    level after the first halves the resolution where its dilation is 1, and keeps it where it is more.
    conditional: a norm for each level of noise, in the refine blocks too (NCSN); else the network does not see t,
    and its refine blocks have no norms (NCSNv2). centered: 2x - 1 comes first, which centres data from [0, 1].
    """

    channels: int = 128
    multipliers: list[int] = field(default_factory=lambda: [1, 2, 2, 2])
    dilations: list[int] = field(default_factory=lambda: [1, 1, 2, 4])
    conditional: bool = True
    pooling: Pooling = Pooling.average
    centered: bool = True

    def __post_init__(self) -> None:
        self.multipliers, self.dilations = list(self.multipliers), list(self.dilations)
        if not self.multipliers or self.channels * min(self.multipliers) < 2:
            raise ValueError(
                "network.channels times each of network.multipliers must be at least 2, "
                f"got {self.channels} times {self.multipliers}"
            )
        if len(self.dilations) != len(self.multipliers) or min(self.dilations) < 1:
            raise ValueError(
                "network.dilations must be as many as network.multipliers, each at least 1, "
                f"got {self.dilations} for {self.multipliers}"
            )
        if self.dilations[0] != 1:
            raise ValueError(f"network.dilations must begin with 1, got {self.dilations}")

    def build(self, image_channels: int, resolution: int, outputs: int = 1, steps: int = 0) -> RefineNet:
        """The network; it takes images of any resolution that can be halved as often as it halves."""
        halvings = self.dilations.count(1) - 1
        if resolution % 2**halvings:
            raise ValueError(
                f"data.resolution must be a multiple of {2**halvings}, as network.dilations halve it {halvings} "
                f"times, got {resolution}"
            )
        if self.conditional and steps < 1:
            raise ValueError(f"network.conditional needs the number of noise levels, got {steps}")
        return RefineNet(self, image_channels, outputs, levels=steps if self.conditional else 1)


class RefineNet(nn.Module):
    """(x_t [B, C, H, W], t [B] in 1..L) → output [B, outputs · C, H, W]."""

    def __init__(self, config: RefineNetConfig, image_channels: int, outputs: int, levels: int) -> None:
        super().__init__()
        self.centered = config.centered
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = Conv2d(image_channels, widths[0])

        self.down = nn.ModuleList()
        inputs = [widths[0], *widths[:-1]]
        for number, (before, width, dilation) in enumerate(zip(inputs, widths, config.dilations, strict=True)):
            self.down.append(ResidualBlock(before, width, dilation, levels, enters=number > 0))
            self.down.append(ResidualBlock(width, width, dilation, levels, enters=False))

        # From the last level up. Each refine block but the first takes on the width of the level that comes next.
        running, last = 0, len(widths) - 1
        self.up = nn.ModuleList()
        for number in range(last, -1, -1):
            sources = [widths[number], running] if number < last else [widths[number]]
            running = widths[max(0, number - 1)] if number < last else widths[number]
            self.up.append(RefineBlock(config, sources, running, levels, units=1 if number else 3))

        self.norm_out = InstanceNormPlus(widths[0], levels)
        self.conv_out = Conv2d(widths[0], outputs * image_channels)

    def forward(
        self, x: Float[Tensor, "B C H W"], t: Int64[Tensor, " B"], condition: Tensor | None = None
    ) -> Float[Tensor, "B O H W"]:
        if condition is not None:
            raise ValueError("network=refinenet takes no condition; set data.labels=false")
        h = self.conv_in(2 * x - 1 if self.centered else x)
        kept = []
        for first, second in zip(self.down[0::2], self.down[1::2], strict=True):
            h = second(first(h, t), t)
            kept.append(h)
        h = self.up[0]([kept.pop()], t)
        for refine in self.up[1:]:
            h = refine([kept.pop(), h], t)
        out: Tensor = self.conv_out(functional.elu(self.norm_out(h, t)))
        return out

    def stages(self) -> Iterator[nn.Module]:
        """The units, in the order in which they run: what is checkpointed, sharded or compiled as one."""
        yield from (*self.down, *self.up)


class Conv2d(FanInUniform, nn.Conv2d):
    """A convolution that keeps the image's size."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, dilation: int = 1, bias: bool = True) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2 * dilation, dilation=dilation, bias=bias)


class ResidualBlock(nn.Module):
    """norm, ELU, conv; norm, ELU, conv; + input. The block that enters a level widens, and halves or dilates."""

    def __init__(self, inputs: int, outputs: int, dilation: int, levels: int, enters: bool) -> None:
        super().__init__()
        self.norm_in = InstanceNormPlus(inputs, levels)
        self.conv_in = Conv2d(inputs, inputs, dilation=dilation)
        self.norm_out = InstanceNormPlus(inputs, levels)
        self.conv_out = Conv2d(inputs, outputs, dilation=dilation)
        self.halves = enters and dilation == 1
        self.skip: nn.Module = nn.Identity()
        if enters:
            self.skip = Conv2d(inputs, outputs, size=1 if self.halves else 3, dilation=dilation)

    def forward(self, x: Float[Tensor, "B I H W"], t: Int64[Tensor, " B"]) -> Float[Tensor, "B O h w"]:
        h = self.conv_in(functional.elu(self.norm_in(x, t)))
        h = self.conv_out(functional.elu(self.norm_out(h, t)))
        out: Tensor = self.skip(x) + h
        return functional.avg_pool2d(out, 2) if self.halves else out


class RefineBlock(nn.Module):
    """Adapt each source, fuse them at the size of the first, pool in a chain, and refine (Lin et al. 2017)."""

    def __init__(self, config: RefineNetConfig, sources: list[int], outputs: int, levels: int, units: int) -> None:
        super().__init__()
        self.adapt = nn.ModuleList([ConvUnits(config, width, levels, units=2) for width in sources])
        fused = sources if len(sources) > 1 else []
        self.fuse_norms = nn.ModuleList([refine_norm(config, width, levels) for width in fused])
        self.fuse_convs = nn.ModuleList([Conv2d(width, outputs) for width in fused])
        self.pool = ChainedPooling(config, outputs, levels)
        self.refine = ConvUnits(config, outputs, levels, units)

    def forward(self, sources: list[Float[Tensor, "B ..."]], t: Int64[Tensor, " B"]) -> Float[Tensor, "B O H W"]:
        adapted = [units(source, t) for units, source in zip(self.adapt, sources, strict=True)]
        h = self.fused(adapted, t) if len(adapted) > 1 else adapted[0]
        out: Tensor = self.refine(self.pool(h, t), t)
        return out

    def fused(self, sources: list[Float[Tensor, "B ..."]], t: Int64[Tensor, " B"]) -> Float[Tensor, "B O H W"]:
        """The sum of the sources, each normalized, convolved and brought to the size of the first."""
        size = sources[0].shape[2:]
        parts = [
            functional.interpolate(conv(norm(source, t)), size=size, mode="bilinear", align_corners=True)
            for norm, conv, source in zip(self.fuse_norms, self.fuse_convs, sources, strict=True)
        ]
        return torch.stack(parts).sum(0)


class ConvUnits(nn.Module):
    """Residual units, each twice (norm, ELU, conv)."""

    def __init__(self, config: RefineNetConfig, channels: int, levels: int, units: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([refine_norm(config, channels, levels) for _ in range(2 * units)])
        self.convs = nn.ModuleList([Conv2d(channels, channels, bias=False) for _ in range(2 * units)])

    def forward(self, x: Float[Tensor, "B C H W"], t: Int64[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
        layers = list(zip(self.norms, self.convs, strict=True))
        for (norm_in, conv_in), (norm_out, conv_out) in zip(layers[0::2], layers[1::2], strict=True):
            h = conv_in(functional.elu(norm_in(x, t)))
            x = x + conv_out(functional.elu(norm_out(h, t)))
        return x


class ChainedPooling(nn.Module):
    """ELU, then + (norm, pool, conv) + (norm, pool, conv) of that: context from ever wider windows."""

    def __init__(self, config: RefineNetConfig, channels: int, levels: int) -> None:
        super().__init__()
        average = config.pooling is Pooling.average
        self.pool = nn.AvgPool2d(5, 1, 2) if average else nn.MaxPool2d(5, 1, 2)
        self.norms = nn.ModuleList([refine_norm(config, channels, levels) for _ in range(2)])
        self.convs = nn.ModuleList([Conv2d(channels, channels, bias=False) for _ in range(2)])

    def forward(self, x: Float[Tensor, "B C H W"], t: Int64[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
        total = path = functional.elu(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(self.pool(norm(path, t)))
            total = total + path
        return total


def refine_norm(config: RefineNetConfig, channels: int, levels: int) -> nn.Module:
    """The norm inside a refine block, if it has one."""
    return InstanceNormPlus(channels, levels) if config.conditional else NoNorm()
