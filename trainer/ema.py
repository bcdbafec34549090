"""Exponential moving averages of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainer.schedules import ema_decay


class Ema:
    """Averages of the fp32 weights that a rank owns, one for each half-life (in images).

    They start as the weights, and are kept as lists in the order of the names, so that an update is one foreach
    call for each half-life and needs no communication, however the weights are sharded.
    """

    def __init__(self, shards: Mapping[str, Tensor], half_lives: Sequence[float]) -> None:
        if not half_lives or any(half_life <= 0 for half_life in half_lives):
            raise ValueError(
                f"ema.half_lives must be one or more positive numbers of images, got {list(half_lives)}"
            )
        if len(set(half_lives)) < len(half_lives):
            raise ValueError(f"ema.half_lives must differ from each other, got {list(half_lives)}")
        self.names = list(shards)
        self.averages = {
            half_life: [shards[name].detach().clone() for name in self.names] for half_life in half_lives
        }

    @torch.no_grad()
    def update(self, shards: Mapping[str, Tensor], batch: int) -> None:
        """average ← decay · average + (1 - decay) · weights, after a step on `batch` images."""
        weights = [shards[name].detach() for name in self.names]
        for half_life, average in self.averages.items():
            torch._foreach_lerp_(average, weights, 1 - ema_decay(half_life, batch))

    def shards(self, half_life: float | None = None) -> dict[str, Tensor]:
        """The averaged weights by name: of `half_life`, or of the first one listed."""
        chosen = next(iter(self.averages)) if half_life is None else half_life
        if chosen not in self.averages:
            raise ValueError(f"ema.half_lives has no {chosen}; it has {list(self.averages)}")
        return dict(zip(self.names, self.averages[chosen], strict=True))
