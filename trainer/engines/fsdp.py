"""Rows of every parameter in each process: fully sharded data parallelism (FSDP2), also in several replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from models.networks.scheduled import Scheduled
from trainer.distributed import World, meeting
from trainer.engines import layout
from trainer.engines.engine import Engine, EngineConfig, Precision
from trainer.engines.layout import Layout, Rows
from trainer.engines.local import LocalEngine, state_of
from trainer.engines.network import as_configured, fill, on_meta, run
from trainer.optimizers import OptimizerConfig, guarded_step, norm_over, same_steps
from trainer.shard import Shard, Shards, copy_shards

REPLICAS, SHARDS = "replicas", "shards"


@dataclass
class FsdpConfig(EngineConfig):
    """Any number of processes, each with its part of the weights, moments and averages.

    replicas: of the network, each spread over ranks / replicas neighbouring ranks (hybrid sharding).
    reshard_after_forward: gathers a stage's weights again for its backward pass instead of keeping them for it.
    """

    replicas: int = 1
    reshard_after_forward: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replicas < 1:
            raise ValueError(f"engine.replicas must be at least 1, got {self.replicas}")

    def build(
        self, network: Callable[[], nn.Module], optimizer: OptimizerConfig, seed: int, world: World
    ) -> Engine:
        self.check(on_meta(network), world.size)
        if world.size == 1:
            return LocalEngine(self, network, optimizer, seed, world.device)
        return FsdpEngine(self, network, optimizer, seed, world)

    def check(self, network: nn.Module, ranks: int) -> None:
        if ranks % self.replicas:
            raise ValueError(f"engine.replicas must divide the number of ranks, {ranks}, got {self.replicas}")
        if ranks > 1 and isinstance(network, Scheduled):
            raise ValueError(
                "process/schedule=learned reads its parameters outside the network's forward pass, where "
                "engine=fsdp has only a part of them; choose engine=ddp, or engine=zero1 or zero2 with "
                "engine.precision=fp32, or start one process"
            )

    def layout(self, ranks: int) -> Layout:
        if ranks == 1:
            return layout.whole(ranks, self.precision.bytes)
        return layout.rows(ranks, self.replicas, self.precision.bytes, self.reshard_after_forward)


class FsdpEngine(Engine):
    """A part of the network in each of several processes; a stage is whole only while it runs.

    The optimizer goes over plain tensors, the rows that the rank owns, which the sharded parameters share.
    """

    def __init__(
        self,
        config: FsdpConfig,
        network: Callable[[], nn.Module],
        optimizer: OptimizerConfig,
        seed: int,
        world: World,
    ) -> None:
        self.config, self.device, self.accumulation = config, world.device, config.accumulation
        mesh = mesh_of(world, config.replicas)
        self._shard_group = mesh.get_group(SHARDS)
        self._units = sharded(on_meta(network), config, mesh)
        self.network = self._units[-1].to_empty(device=self.device).train()
        self._parameters = dict(self.network.named_parameters())
        place = mesh.get_local_rank(SHARDS), world.size // config.replicas
        shards = {name: own_rows(parameter, *place) for name, parameter in self._parameters.items()}
        fill(shards, on_meta(network), seed)
        self._owned = {name: nn.Parameter(shard.tensor) for name, shard in shards.items()}
        self.optimizer = optimizer.build(self._owned.values())
        self._state = state_of(self.optimizer, self._owned, shards)

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        if x.requires_grad and self.network.training:
            raise ValueError(
                "the objective differentiates the network by its input, and engine=fsdp frees a stage's weights "
                "after one backward pass; choose engine=ddp, zero1 or zero2"
            )
        if not torch.is_inference_mode_enabled():
            return run(self.network, self.config, x, t, condition)
        # The memory into which weights are gathered serves training too, which cannot use what inference made.
        with torch.inference_mode(False), torch.no_grad():
            return run(self.network, self.config, x, t, condition)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Each backward pass leaves to a rank its rows of its replica's sum, the last one of the whole."""
        if self.config.replicas > 1:
            self.network.set_requires_all_reduce(last)
        loss.backward()

    @torch.no_grad()
    def step(self, learning_rate: float) -> Tensor:
        for name, parameter in self._parameters.items():
            self._owned[name].grad = None if parameter.grad is None else parameter.grad.to_local().view(-1)
            parameter.grad = None
        gradients = [each.grad for each in self._owned.values() if each.grad is not None]
        norm = norm_over(self._shard_group, gradients, self.device)
        guarded_step(self.optimizer, learning_rate, norm, self.config.clip_norm)
        self._forget_gathered()
        return norm

    def shards(self) -> Shards:
        return self._state["parameters"]

    @contextmanager
    def lend(self, shards: Shards) -> Iterator[None]:
        own = {name: shard.like(shard.tensor.clone()) for name, shard in self.shards().items()}
        self._become(shards)
        self.network.eval()
        try:
            yield
        finally:
            self._become(own)
            self.network.train()

    def _become(self, weights: Shards) -> None:
        copy_shards(weights, self.shards())
        self._forget_gathered()

    def _forget_gathered(self) -> None:
        """The weights have changed: what a forward pass gathered of them, and kept, is not used again."""
        for unit in self._units:
            unit.reshard()

    def state(self) -> Mapping[str, Shards]:
        return self._state

    def refresh(self) -> None:
        same_steps(self.optimizer, self._state["steps"]["optimizer"].whole)
        self._forget_gathered()


def mesh_of(world: World, replicas: int) -> DeviceMesh:
    """The ranks as `replicas` rows, in each of which the network is there once."""
    kind, columns = world.device.type, world.size // replicas
    if replicas == 1:
        return init_device_mesh(kind, (columns,), mesh_dim_names=(SHARDS,))
    ranks = torch.arange(world.size).view(replicas, columns)
    groups = [own_group(world, ranks.T), own_group(world, ranks)]
    return DeviceMesh.from_group(groups, kind, mesh=ranks, mesh_dim_names=(REPLICAS, SHARDS))


def own_group(world: World, ranks: Tensor) -> dist.ProcessGroup:
    """The group of this rank among those that the rows of `ranks` make, as patient as the world is."""
    patience: timedelta = dist.group.WORLD._get_backend(world.device).options._timeout
    with meeting(patience.total_seconds()):
        groups = [dist.new_group(row, timeout=patience) for row in ranks.tolist()]
    return next(group for group, row in zip(groups, ranks.tolist(), strict=True) if world.rank in row)


def sharded(network: nn.Module, config: FsdpConfig, mesh: DeviceMesh) -> list[Any]:
    """The units that are gathered as one: each stage, and the network with what is left of it.

    Gradients are summed in fp32. Inputs are cast by autocast, as in every engine.
    """
    # Here, as it takes a second, and every door imports the config.
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    as_configured(network, config)
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if config.precision is Precision.bf16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    units = [
        fully_shard(stage, mesh=mesh, mp_policy=policy, reshard_after_forward=config.reshard_after_forward)
        for stage in network.stages()
    ]
    # The backward pass begins where the forward pass has ended: with the rest, which therefore stays.
    return [*units, fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=False)]


def own_rows(parameter: nn.Parameter, place: int, places: int) -> Shard:
    """What is here of a sharded parameter, sharing its memory: as many rows in each place, as far as they go."""
    (elements,) = Rows(places).owned([tuple(parameter.shape)], place)
    with torch.no_grad():
        local = parameter.to_local().view(-1)
    assert len(local) == len(elements), (parameter.shape, len(local), elements)
    return Shard(local, elements.start, tuple(parameter.shape))
