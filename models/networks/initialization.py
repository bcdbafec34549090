"""Initial weights as a pure function of (seed, parameter name): the same for every engine and world size."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod

import torch
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
        """The half-width of the uniform law of each row, shaped to multiply the weight."""
        fan_in, field = self.weight[0].numel(), self.weight[0, 0].numel()
        rows = self.init_rows or (len(self.weight),)
        bounds = [(3 * self.init_scale / ((fan_in + count * field) / 2)) ** 0.5 for count in rows]
        each_row = torch.repeat_interleave(torch.tensor(bounds), torch.tensor(rows))
        return each_row.reshape(-1, *[1] * (self.weight.ndim - 1))


class StartsItself(ABC):
    """Mixed into a layer that says itself how each of its parameters starts."""

    @abstractmethod
    def start(self, kind: str, uniform: Tensor) -> Tensor:
        """The parameter `kind`, made of uniform numbers in (0, 1] of its shape."""


@torch.no_grad()
def initialize(network: nn.Module, seed: int) -> None:
    """Fills every parameter in place. Norms start as the identity, biases at 0, the rest as their layer says.

    Raises ValueError for a parameter on the meta device or in a layer that does not say how it starts.
    """
    for name, parameter in network.named_parameters():
        owner_name, _, kind = name.rpartition(".")
        owner = network.get_submodule(owner_name)
        if parameter.is_meta:
            raise ValueError(f"parameter {name} is on the meta device: it needs memory first")
        if isinstance(owner, StartsItself):
            parameter.copy_(
                owner.start(kind, keyed_uniform(seed, name, parameter.numel()).reshape(parameter.shape))
            )
        elif kind == "bias":
            parameter.zero_()
        elif isinstance(owner, VarianceScaled):
            uniform = 2 * keyed_uniform(seed, name, parameter.numel()).reshape(parameter.shape) - 1
            parameter.copy_(uniform * owner.bounds())
        elif isinstance(owner, nn.GroupNorm):
            parameter.fill_(1)
        else:
            raise ValueError(f"parameter {name}: its layer, {type(owner).__name__}, has no initial law")


def keyed_uniform(seed: int, name: str, count: int, piece: int = 1 << 18) -> Tensor:
    """`count` uniform numbers in (0, 1] for the parameter `name`, made a piece at a time to stay in cache."""
    noise = Noise(seed, torch.tensor([zlib.crc32(name.encode())]))
    pieces = [
        noise.uniform(Purpose.INITIALIZATION, (min(piece, count - start),), step)[0]
        for step, start in enumerate(range(0, count, piece))
    ]
    return torch.cat(pieces)
