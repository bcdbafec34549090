"""Exponential moving averages of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from trainer.schedules import ema_decay
from trainer.shard import Shard, Shards


class Ema:
    """Averages of the live fp32 weights that a rank owns, one for each half-life (in images).

    They start as the weights. An update needs no communication, however the weights are sharded: it is one foreach
    call for each half-life, over as few and as long tensors as the weights' memory allows.
    """

    def __init__(self, shards: Shards, half_lives: Sequence[float]) -> None:
        check_half_lives(half_lives)
        self.weights = runs(shard.tensor for shard in shards.values())
        self.averages = {half_life: [run.clone() for run in self.weights] for half_life in half_lives}
        self._named = {half_life: named_like(shards, average) for half_life, average in self.averages.items()}

    @torch.no_grad()
    def update(self, batch: int) -> None:
        """average ← decay · average + (1 - decay) · weights, after a step on `batch` images."""
        for half_life, average in self.averages.items():
            torch._foreach_lerp_(average, self.weights, 1 - ema_decay(half_life, batch))

    def shards(self, half_life: float | None = None) -> Shards:
        """The averaged weights by name, cut as the live ones are: of `half_life`, or of the first one listed."""
        chosen = next(iter(self.averages)) if half_life is None else half_life
        if chosen not in self.averages:
            raise ValueError(f"ema.half_lives has no {chosen}; it has {list(self.averages)}")
        return self._named[chosen]


def check_half_lives(half_lives: Sequence[float]) -> None:
    """Raises ValueError where these cannot be half-lives."""
    if not half_lives or not all(half_life > 0 for half_life in half_lives):
        raise ValueError(f"ema.half_lives must be one or more positive numbers of images, got {list(half_lives)}")
    if len(set(half_lives)) < len(half_lives):
        raise ValueError(f"ema.half_lives must differ from each other, got {list(half_lives)}")


def runs(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The same memory in as few flat tensors as possible: neighbours that touch become one.

    Tensors that are not contiguous are refused by an assertion: an engine keeps its weights in plain memory.
    """
    found: list[Tensor] = []
    for tensor in filter(Tensor.numel, tensors):
        assert tensor.is_contiguous(), tensor.stride()
        flat = tensor.detach().view(-1)
        last = found[-1] if found else flat
        shares = last.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
        if found and shares and last.storage_offset() + last.numel() == flat.storage_offset():
            found[-1] = last.as_strided((last.numel() + flat.numel(),), (1,))
        else:
            found.append(flat)
    return found


def named_like(shards: Shards, flat: Sequence[Tensor]) -> dict[str, Shard]:
    """Views of the flat tensors in the names, order and places of the shards that they were made of."""
    pieces, left = iter(flat), next(iter(shards.values())).tensor.new_empty(0)
    named = {}
    for name, shard in shards.items():
        count = shard.tensor.numel()
        if count and not left.numel():
            left = next(pieces)
        named[name], left = shard.like(left[:count]), left[count:]
    return named
