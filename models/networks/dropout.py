"""Dropout as a pure function of (seed, sample, layer): the same on any number of ranks and in any micro-batch."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
import torch.func._random
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.noise import Noise, Purpose

SCHEMA = "(Tensor index, int seed, int layer, int share, int[] shape) -> Tensor"


class Dropout(nn.Module):
    """Dropout with probability p to the nearest 2^-16: each 64-bit number decides for four elements.

    `key_dropout` says which samples a batch holds. Without it, torch's own generator picks their numbers.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropped = round(p * 2**16)
        self.layer = 0
        self.noise: Noise | None = None

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        if not (self.training and self.dropped):
            return x
        noise = self.noise or Noise(0, torch.randint(1 << 55, (len(x),), device=x.device))
        # The seed's 64 bits as a signed number, which is what an operator takes.
        seed = noise.seed - (noise.seed >> 63 << 64)
        drop = dropped(noise.index, seed, self.layer, self.dropped, list(x.shape))
        return x.masked_fill(drop, 0) * (1 / (1 - self.dropped / 2**16))


def key_dropout(network: nn.Module, noise: Noise) -> None:
    """From now on every dropout of the network draws for these samples: [B] of them, as in the next batch."""
    layers = (module for module in network.modules() if isinstance(module, Dropout))
    for number, layer in enumerate(layers):
        layer.layer, layer.noise = number, noise


# One operator, so that a compiled network calls it as it is: what it does inside cannot be traced.
@torch.library.custom_op("quasistatic::dropped", mutates_args=(), schema=SCHEMA)
def dropped(index: Tensor, seed: int, layer: int, share: int, shape: list[int]) -> Tensor:
    """Which elements of x [B, …] are dropped: each with probability share / 2^16."""
    draw = on_cpu if index.device.type == "cpu" else on_accelerator
    return draw(Noise(seed % 2**64, index), layer, share, prod(shape[1:])).view(shape)


@dropped.register_fake
def _(index: Tensor, seed: int, layer: int, share: int, shape: list[int]) -> Tensor:
    return index.new_empty(shape, dtype=torch.bool)


def on_cpu(noise: Noise, layer: int, share: int, count: int) -> Bool[Tensor, "B count"]:
    """By numpy's Philox 4x64-10, with the key (seed, purpose) and the counter (block, layer, sample)."""
    key = noise.seed | Purpose.DROPOUT << 64
    lanes = torch.empty(len(noise.index), -(-count // 4) * 4, dtype=torch.int16)
    for row, sample in zip(lanes.numpy().view(np.int64), noise.index.tolist(), strict=True):
        row[:] = np.random.Philox(key=key, counter=sample << 128 | layer << 64).random_raw(len(row)).view(np.int64)
    return (lanes[:, :count] < share - 2**15).contiguous()


def on_accelerator(noise: Noise, layer: int, share: int, count: int) -> Bool[Tensor, "B count"]:
    """By torch's stateless Philox 4x32-10, which has no kernel for CPUs: each sample has a key of its own."""
    high, low = noise.words(Purpose.DROPOUT, 2, layer).unbind(1)
    keys = torch.stack((high << 32 | low, torch.zeros_like(low)), dim=1)[:, None].view(torch.uint64)
    uniform = torch.empty(len(keys), count, device=keys.device)
    return torch.func._random.uniform_(keys, uniform) < share / 2**16
