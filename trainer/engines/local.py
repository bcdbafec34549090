"""The whole network in one process: the spec for every other engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.initialization import initialize
from trainer.distributed import World
from trainer.engines import layout
from trainer.engines.engine import MOMENTS, Engine, EngineConfig
from trainer.engines.layout import Layout
from trainer.engines.network import as_configured, on_meta, run
from trainer.optimizers import OptimizerConfig, adam_state, guarded_step, norm_of, same_steps
from trainer.shard import Shard, Shards


@dataclass
class LocalConfig(EngineConfig):
    """One process, on one accelerator or a CPU."""

    def build(
        self, network: Callable[[], nn.Module], optimizer: OptimizerConfig, seed: int, world: World
    ) -> LocalEngine:
        self.check(on_meta(network), world.size)
        return LocalEngine(self, network, optimizer, seed, world.device)

    def check(self, network: nn.Module, ranks: int) -> None:
        if ranks > 1:
            raise ValueError(
                f"engine=local trains in one process, and {ranks} were started; "
                "choose engine=ddp, fsdp, zero1, zero2 or zero3, or start one process"
            )

    def layout(self, ranks: int) -> Layout:
        return layout.whole(ranks, self.precision.bytes)


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
        self.config, self.device, self.accumulation = config, device, config.accumulation
        self.network = initialized(network, seed, device).train()
        flatten(self.network)
        as_configured(self.network, config)
        self.parameters = dict(self.network.named_parameters())
        self.optimizer = optimizer.build(self.parameters.values())
        self._state = state_of(self.optimizer, self.parameters, wholes(self.parameters))

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return run(self.network, self.config, x, t, condition)

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def step(self, learning_rate: float) -> Tensor:
        norm = norm_of([each.grad for each in self.parameters.values() if each.grad is not None])
        guarded_step(self.optimizer, learning_rate, norm, self.config.clip_norm)
        return norm

    def shards(self) -> Shards:
        return self._state["parameters"]

    @contextmanager
    def lend(self, shards: Shards) -> Iterator[None]:
        assert self.shards().keys() == shards.keys()
        self._point_to(shards)
        self.network.eval()
        try:
            yield
        finally:
            self._point_to(self.shards())
            self.network.train()

    def _point_to(self, weights: Shards) -> None:
        for name, parameter in self.parameters.items():
            parameter.data = weights[name].whole

    def state(self) -> Mapping[str, Shards]:
        return self._state

    def refresh(self) -> None:
        same_steps(self.optimizer, self._state["steps"]["optimizer"].whole)


def state_of(
    optimizer: torch.optim.Adam, parameters: Mapping[str, nn.Parameter], shards: Shards
) -> dict[str, Shards]:
    """What a checkpoint holds of an engine whose optimizer goes over `parameters`, the tensors of its shards."""
    moments = adam_state(optimizer)
    state: dict[str, Shards] = {"parameters": shards}
    for kind in MOMENTS:
        of_kind = {name: moments[parameter][kind].view(-1) for name, parameter in parameters.items()}
        state[kind] = {name: shard.like(of_kind[name]) for name, shard in shards.items()}
    state["steps"] = {"optimizer": Shard.of_whole(next(iter(moments.values()))["step"])}
    return state


def wholes(tensors: Mapping[str, Tensor]) -> Shards:
    """All of each tensor."""
    return {name: Shard.of_whole(tensor) for name, tensor in tensors.items()}


def initialized(network: Callable[[], nn.Module], seed: int, device: torch.device) -> nn.Module:
    """The network on `device`: built without memory, given it once, and filled from the seed."""
    built = on_meta(network)
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
