"""The smallest engine of several ranks: each holds everything, and the gradients are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.distributed import World
from trainer.engines.engine import EngineConfig
from trainer.engines.local import LocalEngine


@dataclass
class AveragingConfig(EngineConfig):
    def build(self, network, optimizer, seed, world):
        return AveragingEngine(self, network, optimizer, seed, world)


class AveragingEngine(LocalEngine):
    def __init__(self, config, network, optimizer, seed, world: World) -> None:
        super().__init__(config, network, optimizer, seed, world.device)
        self.world = world

    def step(self, learning_rate: float) -> Tensor:
        gradients = [each.grad for each in self.parameters.values()]
        mean = self.world.total(torch.cat([each.flatten() for each in gradients])) / self.world.size
        for gradient, piece in zip(gradients, mean.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(piece.view_as(gradient))
        return super().step(learning_rate)
