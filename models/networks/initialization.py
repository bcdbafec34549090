"""Initial weights as a pure function of (seed, parameter name): the same for every engine and world size."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from models.noise import Noise, Purpose


class VarianceScaled:
    """Mixed into a layer whose weight is uniform with variance init_scale / fan_avg, as in the official DDPM code.

    init_scale: 0 makes a residual branch start as nothing.
    init_rows: for a layer that holds several side by side, the output rows of each; each has a fan of its own.
    """

    weight: Tensor
    init_scale: float = 1.0
    init_rows: tuple[int, ...] = ()

    def bounds(self) -> Tensor:
        """The half-width of the uniform law of each row."""
        fan_in, field = self.weight[0].numel(), self.weight[0, 0].numel()
        rows = self.init_rows or (len(self.weight),)
        bounds = [(3 * self.init_scale / ((fan_in + count * field) / 2)) ** 0.5 for count in rows]
        return torch.repeat_interleave(torch.tensor(bounds), torch.tensor(rows))


class StartsItself(ABC):
    """Mixed into a layer that says itself how each of its parameters starts."""

    @abstractmethod
    def start(self, kind: str, uniform: Tensor) -> Tensor:
        """The parameter `kind`, made of uniform numbers in (0, 1] of its shape."""


class FanInUniform(StartsItself):
    """Mixed into a layer whose weight and bias are uniform within ±1 / sqrt(fan_in): torch's own law."""

    weight: Tensor

    def start(self, kind: str, uniform: Tensor) -> Tensor:
        return (2 * uniform - 1) / math.sqrt(self.weight[0].numel())


@torch.no_grad()
def initialize(network: nn.Module, seed: int) -> None:
    """Fills every parameter in place.

    Raises ValueError for a parameter on the meta device or in a layer that does not say how it starts.
    """
    for name, parameter in network.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"parameter {name} is on the meta device: it needs memory first")
        parameter.copy_(initial(network, name, seed, 0, parameter.numel()).view(parameter.shape))


def initial(network: nn.Module, name: str, seed: int, start: int, stop: int) -> Float32[Tensor, " n"]:
    """Elements start .. stop - 1, counted row by row, of what the parameter `name` starts as, on the CPU.

    Norms start as the identity, biases at 0, the rest as their layer says. The network may be on the meta device:
    no more is made than is asked for, except in a layer that `StartsItself`: there the whole parameter is drawn,
    then cut. Raises ValueError where the layer does not say how it starts.
    """
    owner_name, _, kind = name.rpartition(".")
    owner = network.get_submodule(owner_name)
    if isinstance(owner, StartsItself):
        parameter = owner.get_parameter(kind)
        uniform = keyed_uniform(seed, name, parameter.numel(), 0, parameter.numel()).view(parameter.shape)
        return owner.start(kind, uniform).flatten()[start:stop]
    if kind == "bias":
        return torch.zeros(stop - start)
    if isinstance(owner, VarianceScaled):
        row = owner.weight[0].numel()
        rows = torch.arange(start, stop).div_(row, rounding_mode="floor")
        return (2 * keyed_uniform(seed, name, owner.weight.numel(), start, stop) - 1) * owner.bounds()[rows]
    if isinstance(owner, nn.GroupNorm):
        return torch.ones(stop - start)
    raise ValueError(f"parameter {name}: its layer, {type(owner).__name__}, has no initial law")


def keyed_uniform(
    seed: int, name: str, count: int, start: int, stop: int, piece: int = 1 << 18
) -> Float32[Tensor, " n"]:
    """Numbers start .. stop - 1 of the `count` of the parameter `name`, uniform in (0, 1].

    They are made a piece at a time, to stay in cache, and only the pieces that are asked for.
    """
    noise = Noise(seed, torch.tensor([zlib.crc32(name.encode())]))
    first, last = start // piece, -(-stop // piece)
    pieces = [
        noise.uniform(Purpose.INITIALIZATION, (min(piece, count - step * piece),), step)[0]
        for step in range(first, last)
    ]
    return torch.cat([torch.empty(0), *pieces])[start - first * piece : stop - first * piece]


def normal_of(uniform: Tensor) -> Tensor:
    """Standard normal numbers, the quantiles of uniform ones in (0, 1]."""
    quantiles: Tensor = torch.special.ndtri(uniform.clamp(max=1 - 2.0**-24))
    return quantiles
