"""The U-Net of Ho et al. 2020 (appendix B): 35,746,307 parameters for CIFAR-10, 113,673,219 for LSUN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from models.networks.config import NetworkConfig
from models.networks.layers import Attention, Conv2d, Downsample, ResidualBlock, TimeEmbedding, Upsample


@dataclass
class UNetConfig(NetworkConfig):
    """The shape of a U-Net.

    channels: of the first level; level i has channels · multipliers[i] and half the resolution of the one before.
    blocks: residual blocks a level. attention: the resolutions whose blocks are followed by self-attention.
    classes: how many the network is told of, with data.labels=true; 0 for a network of no condition.
    """

    channels: int = 128
    multipliers: list[int] = field(default_factory=lambda: [1, 2, 2, 2])
    blocks: int = 2
    attention: list[int] = field(default_factory=lambda: [16])
    dropout: float = 0.1
    groups: int = 32
    classes: int = 0

    def __post_init__(self) -> None:
        self.multipliers, self.attention = list(self.multipliers), list(self.attention)
        if self.groups < 1:
            raise ValueError(f"network.groups must be at least 1, got {self.groups}")
        widths = [self.channels * m for m in self.multipliers]
        if not widths or any(width < 1 or width % self.groups for width in widths):
            raise ValueError(
                f"network.channels times each of network.multipliers must divide into network.groups = "
                f"{self.groups} groups, got {self.channels} times {self.multipliers}"
            )
        if self.channels % 2 or self.channels < 4:
            raise ValueError(f"network.channels must be even and at least 4, got {self.channels}")
        if self.blocks < 1:
            raise ValueError(f"network.blocks must be at least 1, got {self.blocks}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"network.dropout must lie in [0, 1), got {self.dropout}")
        if self.classes < 0:
            raise ValueError(f"network.classes must be at least 0 (0 takes no condition), got {self.classes}")

    @property
    def known_classes(self) -> int:
        return self.classes

    def build(self, image_channels: int, resolution: int, outputs: int = 1, steps: int = 0) -> UNet:
        return UNet(self, image_channels, resolution, outputs)


class UNet(nn.Module):
    """(x_t [B, C, H, W], t [B] in 1..T, classes [B]) → output [B, outputs · C, H, W].

    Without classes, a network that knows some draws from all of them, as where the class is `NO_CLASS`.
    """

    def __init__(self, config: UNetConfig, image_channels: int, resolution: int, outputs: int = 1) -> None:
        super().__init__()
        halvings = len(config.multipliers) - 1
        if resolution % 2**halvings:
            raise ValueError(
                f"data.resolution must be a multiple of {2**halvings}, as network.multipliers has "
                f"{halvings + 1} levels, got {resolution}"
            )
        widths = [config.channels * m for m in config.multipliers]
        sizes = [resolution >> level for level in range(len(widths))]
        self.conv_in = Conv2d(image_channels, widths[0])

        running = widths[0]
        kept = [running]  # the channels of every feature map that a skip connection carries over
        self.down = nn.ModuleList()
        for level, (width, size) in enumerate(zip(widths, sizes, strict=True)):
            for _ in range(config.blocks):
                self.down.append(Stage(config, running, width, size))
                running = width
                kept.append(running)
            if level < halvings:
                self.down.append(Downsample(running))
                kept.append(running)

        self.middle_in = Stage(config, running, running, size=None, attends=True)
        self.middle_out = Stage(config, running, running, size=None)

        self.up = nn.ModuleList()
        for level, (width, size) in reversed(list(enumerate(zip(widths, sizes, strict=True)))):
            for _ in range(config.blocks + 1):
                self.up.append(Stage(config, running + kept.pop(), width, size))
                running = width
            if level > 0:
                self.up.append(Upsample(running))

        self.norm_out = nn.GroupNorm(config.groups, running, eps=1e-6)
        self.conv_out = Conv2d(running, outputs * image_channels, init_scale=0.0)
        self.takes_classes = config.classes > 0
        self.time = TimeEmbedding(config.channels, [stage.width for stage in self.stages()], config.classes)

    def forward(
        self, x: Float[Tensor, "B C H W"], t: Int64[Tensor, " B"], condition: Int64[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B O H W"]:
        if condition is not None and not self.takes_classes:
            raise ValueError("network.classes=0 takes no condition; set it, or data.labels=false")
        shifts = iter(self.time(t, condition))
        h = self.conv_in(x)
        kept = [h]
        for layer in self.down:
            h = layer(h, next(shifts)) if isinstance(layer, Stage) else layer(h)
            kept.append(h)
        h = self.middle_out(self.middle_in(h, next(shifts)), next(shifts))
        for layer in self.up:
            h = layer(torch.cat((h, kept.pop()), 1), next(shifts)) if isinstance(layer, Stage) else layer(h)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(h)))
        return out

    def stages(self) -> Iterator[Stage]:
        """The units, in the order in which they run: what is checkpointed, sharded or compiled as one."""
        for layer in (*self.down, self.middle_in, self.middle_out, *self.up):
            if isinstance(layer, Stage):
                yield layer


class Stage(nn.Module):
    """A residual block, and self-attention where the resolution `size` asks for it."""

    def __init__(
        self, config: UNetConfig, inputs: int, width: int, size: int | None, attends: bool = False
    ) -> None:
        super().__init__()
        self.width = width
        self.residual = ResidualBlock(inputs, width, config.groups, config.dropout)
        attends = attends or size in config.attention
        self.attention = Attention(width, config.groups) if attends else nn.Identity()

    def forward(self, x: Float[Tensor, "B I H W"], time: Float[Tensor, "B O"]) -> Float[Tensor, "B O H W"]:
        out: Tensor = self.attention(self.residual(x, time))
        return out
