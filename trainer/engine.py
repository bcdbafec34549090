"""Engines: where the weights live and how a step is made. `LocalEngine`, one process, is the spec for the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.networks.initialization import initialize
from trainer.distributed import World, default_device
from trainer.optimizers import OptimizerConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


class Precision(Enum):
    """The type in which the network computes; weights, moments and averages are fp32 in either.

    fp32 is fp32 on an accelerator too: TF32, which torch allows convolutions by default, is switched off.
    """

    fp32 = "fp32"
    bf16 = "bf16"


class Engine(ABC):
    """A network being trained. Every rank calls every method alike."""

    device: torch.device
    accumulation: int

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The network's output for x [B, C, H, W] at t [B]."""

    @abstractmethod
    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds the gradient of `loss`; `last` says that it is the step's last micro-batch."""

    @abstractmethod
    def step(self, learning_rate: float) -> Tensor:
        """Moves the weights, clears the gradients; the gradient's norm before clipping, still on the device."""

    @abstractmethod
    def shards(self) -> dict[str, Tensor]:
        """The live fp32 weights that this rank owns, by canonical name: the same tensors each time."""

    @abstractmethod
    def lend(self, shards: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Within it the network runs on these weights, with dropout off."""

    @abstractmethod
    def state(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds of the engine: kind → canonical name → tensor."""

    @abstractmethod
    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes over, in place, what `state` gave."""


@dataclass
class EngineConfig:
    """How a step is made.

    accumulation: micro-batches a step. clip_norm: the largest norm of the whole gradient; 0 does not clip.
    checkpoint_activations: recompute each stage's activations in the backward pass instead of keeping them.
    """

    precision: Precision = Precision.bf16
    accumulation: int = 1
    clip_norm: float = 1.0
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise ValueError(f"engine.accumulation must be at least 1, got {self.accumulation}")
        if self.clip_norm < 0:
            raise ValueError(f"engine.clip_norm must be at least 0 (0 does not clip), got {self.clip_norm}")

    def build(
        self, network: Callable[[], nn.Module], optimizer: OptimizerConfig, seed: int, world: World
    ) -> LocalEngine:
        """The engine, with the network that `network` builds, initialized from `seed`."""
        return LocalEngine(self, network, optimizer, seed, default_device())


class LocalEngine(Engine):
    """The whole network in one process."""

    def __init__(
        self,
        config: EngineConfig,
        network: Callable[[], nn.Module],
        optimizer: OptimizerConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        self.device, self.accumulation = device, config.accumulation
        self.clip_norm, self.autocast = config.clip_norm, config.precision is Precision.bf16
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.network = initialized(network, seed, device).train()
        flatten(self.network)
        if config.checkpoint_activations:
            recompute_stages(self.network)
        self.parameters = dict(self.network.named_parameters())
        self._shards = {name: parameter.detach() for name, parameter in self.parameters.items()}
        self.optimizer = optimizer.build(self.parameters.values())

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            output: Tensor = self.network(x, t, condition)
        return output

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def step(self, learning_rate: float) -> Tensor:
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.clip_norm:
            # The fused kernel divides by grad_scale as it reads: clipping costs no pass over the gradients.
            self.optimizer.grad_scale = (norm / self.clip_norm).clamp(min=1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def shards(self) -> dict[str, Tensor]:
        return self._shards

    @contextmanager
    def lend(self, shards: Mapping[str, Tensor]) -> Iterator[None]:
        assert self._shards.keys() == shards.keys()
        self._point_to(shards)
        self.network.eval()
        try:
            yield
        finally:
            self._point_to(self._shards)
            self.network.train()

    def _point_to(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.data = weights[name]

    def state(self) -> dict[str, dict[str, Tensor]]:
        moments = {kind: {name: self._moment(name, kind) for name in self.parameters} for kind in MOMENTS}
        return {"parameters": self.shards(), **moments, "steps": {"optimizer": self._steps()}}

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        for kind in ("parameters", *MOMENTS):
            check_names(kind, self.shards(), state[kind])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
                held = {kind: state[kind][name].to(self.device, copy=True) for kind in MOMENTS}
                steps = state["steps"]["optimizer"].to(self.device, copy=True)
                self.optimizer.state[parameter] = {"step": steps, **held}

    def _moment(self, name: str, kind: str) -> Tensor:
        parameter = self.parameters[name]
        held: dict[str, Tensor] = self.optimizer.state[parameter]
        return held[kind] if held else torch.zeros_like(parameter)

    def _steps(self) -> Tensor:
        held: dict[str, Tensor] = self.optimizer.state[next(iter(self.parameters.values()))]
        return held["step"] if held else torch.zeros((), device=self.device)


def initialized(network: Callable[[], nn.Module], seed: int, device: torch.device) -> nn.Module:
    """The network on `device`: built without memory, given it once, and filled from the seed."""
    with torch.device("meta"):
        built = network()
    built.to_empty(device=device)
    initialize(built, seed)
    return built


def flatten(network: nn.Module) -> None:
    """Moves the parameters, in their order, into one buffer: what goes over all of them is then one long pass."""
    parameters = list(network.parameters())
    buffer = torch.cat([parameter.detach().flatten() for parameter in parameters])
    pieces = buffer.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.data = piece.view(parameter.shape)


def recompute_stages(network: nn.Module) -> None:
    """Activation checkpointing: the network's stages keep their inputs only. Names of parameters stay the same."""
    for stage in network.stages():
        stage.forward = partial(checkpoint, stage.forward, use_reentrant=False)


def check_names(what: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Raises ValueError for the first name or shape in which a checkpoint differs from the configured network."""
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name not in theirs or name not in ours:
            where = "the checkpoint" if name in theirs else "the configured network"
            raise ValueError(f"the checkpoint is of another architecture: {what} {name!r} is only in {where}")
        if ours[name].shape != theirs[name].shape:
            raise ValueError(
                f"the checkpoint is of another architecture: {what} {name!r} has the shape "
                f"{tuple(theirs[name].shape)} there and {tuple(ours[name].shape)} in the configured network"
            )
