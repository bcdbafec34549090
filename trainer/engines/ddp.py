"""The whole network in every process, and the mean of their gradients: replicated data parallelism."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.distributed import World
from trainer.engines import layout
from trainer.engines.engine import EngineConfig
from trainer.engines.layout import Layout
from trainer.engines.local import LocalEngine
from trainer.engines.network import run
from trainer.optimizers import OptimizerConfig

BUCKET_MEGABYTES = 100


@dataclass
class DdpConfig(EngineConfig):
    """Any number of processes, each with the whole network, its moments and its averages."""

    def build(
        self, network: Callable[[], nn.Module], optimizer: OptimizerConfig, seed: int, world: World
    ) -> LocalEngine:
        kind = DdpEngine if world.size > 1 else LocalEngine
        return kind(self, network, optimizer, seed, world.device)

    def check(self, network: nn.Module, ranks: int) -> None:
        """Any number of ranks trains any network."""

    def layout(self, ranks: int) -> Layout:
        return layout.whole(ranks, self.precision.bytes)


class DdpEngine(LocalEngine):
    """The whole network in each of several processes. The weights start alike, so nobody sends them.

    The graph is not called static: objectives that differentiate twice make backward passes of different kinds.
    """

    def __init__(
        self,
        config: EngineConfig,
        network: Callable[[], nn.Module],
        optimizer: OptimizerConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        super().__init__(config, network, optimizer, seed, device)
        if config.compile:  # a stage at a time, so there is nothing that DDP's own compiler could cut
            torch._dynamo.config.optimize_ddp = False
        self._replicated = DistributedDataParallel(
            self.network,
            init_sync=False,
            gradient_as_bucket_view=True,
            bucket_cap_mb=BUCKET_MEGABYTES,
        )
        self._micro_batches = 0

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        if not self.network.training:
            return super().__call__(x, t, condition)
        last = self._micro_batches == self.accumulation - 1
        with nullcontext() if last else self._replicated.no_sync():
            return run(self._replicated, self.config, x, t, condition)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Gradients are averaged as they arrive, in the last backward pass; the forward pass has announced it."""
        self._micro_batches += 1
        assert last is (self._micro_batches == self.accumulation), (self._micro_batches, self.accumulation)
        super().backward(loss, last)

    def step(self, learning_rate: float) -> Tensor:
        self._micro_batches = 0
        return super().step(learning_rate)
