"""The layers that U-Nets are made of (Ho et al. 2020, appendix B)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from models.classes import NO_CLASS
from models.networks.dropout import Dropout
from models.networks.initialization import StartsItself, VarianceScaled, normal_of


class Linear(VarianceScaled, nn.Linear):
    """A linear layer with DDPM's initial law."""

    def __init__(
        self, inputs: int, outputs: int, init_scale: float = 1.0, init_rows: tuple[int, ...] = ()
    ) -> None:
        super().__init__(inputs, outputs)
        self.init_scale, self.init_rows = init_scale, init_rows


class Conv2d(VarianceScaled, nn.Conv2d):
    """A convolution that keeps the image's size (before its stride), with DDPM's initial law."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, init_scale: float = 1.0) -> None:
        super().__init__(inputs, outputs, size, stride, padding=size // 2 if stride == 1 else 0)
        self.init_scale = init_scale


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, + time; norm, SiLU, dropout, conv; + input. The second convolution starts at zero."""

    def __init__(self, inputs: int, outputs: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv_in = Conv2d(inputs, outputs)
        self.norm_out = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.dropout = Dropout(dropout)
        self.conv_out = Conv2d(outputs, outputs, init_scale=0.0)
        self.skip = Conv2d(inputs, outputs, size=1) if inputs != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "B I H W"], time: Float[Tensor, "B O"]) -> Float[Tensor, "B O H W"]:
        h = self.conv_in(functional.silu(self.norm_in(x))) + time[:, :, None, None]
        h = self.conv_out(self.dropout(functional.silu(self.norm_out(h))))
        out: Tensor = self.skip(x) + h
        return out


class Attention(nn.Module):
    """Self-attention with one head over the pixels, + input. The projection starts at zero."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.query_key_value = Linear(channels, 3 * channels, init_rows=(channels,) * 3)
        self.projection = Linear(channels, channels, init_scale=0.0)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.query_key_value(tokens)[:, None].chunk(3, dim=-1)
        h = functional.scaled_dot_product_attention(query, key, value)[:, 0]
        out: Tensor = x + self.projection(h).transpose(1, 2).reshape(x.shape)
        return out


class Downsample(nn.Module):
    """A convolution of stride 2, padded on the right and at the bottom as TensorFlow's "SAME" does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, stride=2)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H/2 W/2"]:
        out: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Each pixel doubled in both directions, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 2*H 2*W"]:
        out: Tensor = self.conv(doubled(x))
        return out


def doubled(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 2*H 2*W"]:
    """Each pixel twice in both directions."""
    b, c, h, w = x.shape
    # Not interpolate(mode="nearest"): compiled for CPU in bf16, torch 2.13 gets its gradient silently wrong.
    return x[:, :, :, None, :, None].expand(b, c, h, 2, w, 2).reshape(b, c, 2 * h, 2 * w)


class TimeEmbedding(nn.Module):
    """t → sinusoids → two layers → the shift of every residual block, all of them in one matrix product.

    widths: the channels of the residual blocks, in the order in which they run. classes: where there are any, each
    adds a vector of its own before the last layer, and so does having none.
    """

    def __init__(self, channels: int, widths: list[int], classes: int = 0) -> None:
        super().__init__()
        self.channels, self.widths = channels, widths
        self.layer_in = Linear(channels, 4 * channels)
        self.layer_out = Linear(4 * channels, 4 * channels)
        self.shifts = Linear(4 * channels, sum(widths), init_rows=tuple(widths))
        self.classes = ClassEmbedding(classes, 4 * channels) if classes else None

    def forward(self, t: Int64[Tensor, " B"], classes: Int64[Tensor, " B"] | None = None) -> tuple[Tensor, ...]:
        h = self.layer_out(functional.silu(self.layer_in(sinusoids(t, self.channels))))
        if self.classes is not None:
            h = h + self.classes(torch.full_like(t, NO_CLASS) if classes is None else classes)
        shifts: Tensor = self.shifts(functional.silu(h))
        return torch.split(shifts, self.widths, dim=1)


class ClassEmbedding(StartsItself, nn.Embedding):
    """A vector for each class, 0 .. classes - 1, and one for `NO_CLASS`, which is the first row."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__(classes + 1, channels)

    def start(self, kind: str, uniform: Tensor) -> Tensor:
        """Standard normal: torch's own law for embeddings."""
        return normal_of(uniform)

    def forward(self, classes: Int64[Tensor, " B"]) -> Float[Tensor, "B channels"]:
        return super().forward(classes - NO_CLASS)


def sinusoids(t: Int64[Tensor, " B"], channels: int) -> Float[Tensor, "B channels"]:
    """sin and cos of t - 1 at frequencies from 1 to 1e-4 (Vaswani et al. 2017); DDPM's code counts t from 0."""
    half = channels // 2
    frequency = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / (half - 1)))
    angle = (t - 1).float()[:, None] * frequency
    return torch.cat((angle.sin(), angle.cos()), dim=1)
