"""The one interface of all engines, and what is chosen about any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from trainer.distributed import World
from trainer.engines.layout import Layout
from trainer.optimizers import OptimizerConfig
from trainer.shard import Shards

MOMENTS = ("exp_avg", "exp_avg_sq")


class Precision(Enum):
    """The type in which the network computes; weights, moments and averages are fp32 in either.

    fp32 is fp32 on an accelerator too: TF32, which torch allows convolutions by default, is switched off.
    """

    fp32 = "fp32"
    bf16 = "bf16"

    @property
    def bytes(self) -> int:
        """Of one number."""
        return 2 if self is Precision.bf16 else 4


class Engine(ABC):
    """A network being trained. Every rank calls every method alike, in the same order.

    network: the module with its parameters' canonical names, for what is asked of it beside running it.
    """

    device: torch.device
    accumulation: int
    network: Any
    config: EngineConfig

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The network's output for this rank's x [B, C, H, W] at t [B]."""

    @abstractmethod
    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds the gradient of this rank's `loss`; `last` says that it is the step's last micro-batch.

        The step follows the mean over ranks of the sum over micro-batches.
        """

    @abstractmethod
    def step(self, learning_rate: float) -> Tensor:
        """Moves the weights and clears the gradients; where the gradient's norm is not finite, it only clears.

        Gives the norm of the whole gradient before clipping, still on the device and the same on every rank.
        """

    @abstractmethod
    def shards(self) -> Shards:
        """The live fp32 weights that this rank owns, by canonical name: the same tensors each time."""

    @abstractmethod
    def lend(self, shards: Shards) -> AbstractContextManager[None]:
        """Within it the network runs on these weights, cut as `shards()` are, with dropout off."""

    @abstractmethod
    def state(self) -> Mapping[str, Shards]:
        """All that a checkpoint holds of the engine: kind → name → shard, live and the same tensors each time.

        The kinds are parameters, `MOMENTS` and steps, the one number of steps that Adam has made.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Takes note that what `state()` gave has been overwritten."""


@dataclass
class EngineConfig(ABC):
    """How a step is made.

    accumulation: micro-batches a step. clip_norm: the largest norm of the whole gradient; 0 does not clip.
    checkpoint_activations: recompute each stage's activations in the backward pass instead of keeping them.
    compile: each stage of the network by torch.compile. channels_last: the memory format of activations.
    """

    precision: Precision = Precision.bf16
    accumulation: int = 1
    clip_norm: float = 1.0
    checkpoint_activations: bool = False
    compile: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise ValueError(f"engine.accumulation must be at least 1, got {self.accumulation}")
        if self.clip_norm < 0:
            raise ValueError(f"engine.clip_norm must be at least 0 (0 does not clip), got {self.clip_norm}")

    @property
    def name(self) -> str:
        """As it is chosen."""
        return type(self).__name__.removesuffix("Config").lower()

    @abstractmethod
    def build(
        self, network: Callable[[], nn.Module], optimizer: OptimizerConfig, seed: int, world: World
    ) -> Engine:
        """The engine, with the network that `network` builds, initialized from `seed`.

        Raises ValueError where `check` does.
        """

    @abstractmethod
    def check(self, network: nn.Module, ranks: int) -> None:
        """Raises ValueError where so many ranks cannot train this network, which may be on the meta device."""

    @abstractmethod
    def layout(self, ranks: int) -> Layout:
        """How the engine of so many ranks, which `check` accepts, cuts what belongs to the weights, for a plan."""
