"""ZeRO (Rajbhandari et al. 2020) by DeepSpeed: optimizer states, gradients and weights cut among the ranks.

DeepSpeed moves gradients and weights between ranks. What a step does is ours, the same as in every engine: the
norm of the whole gradient, clipping, skipping, and torch's fused Adam on the fp32 weights that a rank owns.
"""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.networks.scheduled import Scheduled
from trainer.distributed import World
from trainer.engines import layout
from trainer.engines.engine import Engine, EngineConfig, Precision
from trainer.engines.layout import Layout, Passing
from trainer.engines.network import as_configured, fill, on_meta, run
from trainer.engines.parts import Apart, Together, pieces
from trainer.optimizers import OptimizerConfig, guard, norm_over
from trainer.shard import Shards, copy_shards

BUCKET = 25_000_000  # elements that are reduced or gathered at a time


@dataclass
class ZeroConfig(EngineConfig):
    """Any number of processes, among which what a step needs is cut.

    offload_optimizer: keep the fp32 weights and the moments in the host's memory, and make the step there.
    """

    offload_optimizer: bool = False
    stage: ClassVar[int]

    def build(
        self, network: Callable[[], nn.Module], optimizer: OptimizerConfig, seed: int, world: World
    ) -> ZeroEngine:
        self.check(on_meta(network), world.size)
        deepspeed = prepared(world, self.stage)
        with_group(world)
        return ZeroEngine(deepspeed, self, network, optimizer, seed, world)

    def check(self, network: nn.Module, ranks: int) -> None:
        if isinstance(network, Scheduled) and self.precision is not Precision.fp32:
            raise ValueError(
                f"process/schedule=learned under engine=zero{self.stage} needs engine.precision=fp32: in bf16 the "
                "network, and beta_t with it, would run on rounded weights; choose that, or engine=ddp"
            )

    def layout(self, ranks: int) -> Layout:
        return layout.flat(ranks, self.stage, self.precision.bytes, layout.FLOAT32, self.offload_optimizer, BUCKET)

    @property
    def working(self) -> torch.dtype:
        """The type of the weights that the network runs on."""
        return torch.bfloat16 if self.precision is Precision.bf16 else torch.float32

    def settings(self, largest: int, total: int) -> dict[str, Any]:
        """DeepSpeed's configuration, where it must differ from DeepSpeed's defaults."""
        bucket = max(largest, min(total, BUCKET))
        zero: dict[str, Any] = {
            "stage": self.stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": 2 * bucket,
            "sub_group_size": 10**12,  # one flat tensor, one optimizer step
            "memory_efficient_linear": False,  # it would replace torch's function for the whole process
        }
        if self.offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,  # the losses are scaled already
            "gradient_clipping": 0.0,
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
            "bf16": {"enabled": self.working is torch.bfloat16, "check_grad_overflow": False},
            "timers": {"throughput": {"enabled": False}},  # they wait for the device
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": zero,
        }


@dataclass
class Zero1Config(ZeroConfig):
    """The fp32 weights and Adam's moments are cut."""

    stage: ClassVar[int] = 1


@dataclass
class Zero2Config(ZeroConfig):
    """So are the gradients."""

    stage: ClassVar[int] = 2


@dataclass
class Zero3Config(ZeroConfig):
    """So are the weights that the network runs on: they are gathered module by module while it runs.

    keep_whole: parameters of at most so many elements stay whole on every rank, which spares their gathering.
    """

    keep_whole: int = 4096
    stage: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_whole < 0:
            raise ValueError(f"engine.keep_whole must be at least 0, got {self.keep_whole}")
        if self.compile:
            raise ValueError(
                "engine.compile under engine=zero3 would compile only what lies between two gatherings, over and "
                "over; choose engine=zero2 or fsdp, or engine.compile=false"
            )

    def check(self, network: nn.Module, ranks: int) -> None:
        if isinstance(network, Scheduled):
            raise ValueError(
                "process/schedule=learned reads beta_t beside running the network, when engine=zero3 has no rank "
                "hold it; choose engine=ddp, or engine=zero1 or zero2 with engine.precision=fp32"
            )

    def layout(self, ranks: int) -> Layout:
        # DeepSpeed keeps what it has gathered for as long as that is below a billion elements.
        bytes_each, held = self.precision.bytes, Passing.everything
        return layout.elements(
            ranks, bytes_each, layout.FLOAT32, self.offload_optimizer, BUCKET, held, self.keep_whole
        )

    def settings(self, largest: int, total: int) -> dict[str, Any]:
        settings = super().settings(largest, total)
        settings["zero_optimization"]["stage3_param_persistence_threshold"] = self.keep_whole
        return settings


class ZeroEngine(Engine):
    """A network whose fp32 weights and moments, and more with each stage, are cut among the ranks."""

    def __init__(
        self,
        deepspeed: ModuleType,
        config: ZeroConfig,
        network: Callable[[], nn.Module],
        optimizer: OptimizerConfig,
        seed: int,
        world: World,
    ) -> None:
        self.config = config
        self.device, self.accumulation = world.device, config.accumulation
        plan = on_meta(network)
        shapes = {name: tuple(parameter.shape) for name, parameter in plan.named_parameters()}
        self.network = with_memory(deepspeed, on_meta(network).to(config.working), config, world.device)
        self.optimizer = optimizer.build(self.network.parameters())
        self.optimizer.register_step_pre_hook(self._guard)
        self._deepspeed = started(deepspeed, self.network, self.optimizer, config, shapes)
        self._parts = (Apart if config.stage == 3 else Together)(self._deepspeed.optimizer, shapes, world)
        as_configured(self.network.train(), config)
        self._state = self._parts.state(self.optimizer)
        self._copies = pieces(self._parts.places, self._parts.copies)
        self._norm = torch.zeros(())
        with torch.no_grad():
            self._parts.masters.zero_()
        fill(self.shards(), plan, seed)
        self.refresh()

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.config.stage == 3 and self.network.training and x.requires_grad:
            raise ValueError(
                "the objective differentiates the network by its input and then by its weights, which under "
                "engine=zero3 are not gathered a second time; choose engine=ddp, zero1 or zero2"
            )
        return run(self.network, self.config, x, t, condition)

    def backward(self, loss: Tensor, last: bool) -> None:
        # DeepSpeed's own forward would take each derivative that an objective takes for the step's backward.
        self._deepspeed.optimizer.clear_backward_seen_flag()
        self._deepspeed.set_gradient_accumulation_boundary(last)
        self._deepspeed._backward_prologue()
        self._deepspeed.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._deepspeed.step()
        return self._norm

    def _guard(self, optimizer: torch.optim.Adam, *_: object) -> None:
        """Called before the optimizer's step, when this rank's part of the gradient is complete."""
        (group,) = optimizer.param_groups
        gradients = [part.grad for part in group["params"]]
        self._norm = norm_over(dist.group.WORLD, gradients, self.device)
        guard(optimizer, group["lr"], self._norm.to(gradients[0].device), self.config.clip_norm)

    def shards(self) -> Shards:
        return self._state["parameters"]

    @contextmanager
    def lend(self, shards: Shards) -> Iterator[None]:
        assert self.shards().keys() == shards.keys()
        self._run_on(shards)
        self.network.eval()
        try:
            yield
        finally:
            self._run_on(self.shards())
            self.network.train()

    def _run_on(self, shards: Shards) -> None:
        self._parts.release()
        copy_shards(shards, self._copies)
        self._parts.publish()

    def state(self) -> Mapping[str, Shards]:
        return self._state

    def refresh(self) -> None:
        self._run_on(self.shards())


def prepared(world: World, stage: int) -> ModuleType:
    """DeepSpeed, told what it would otherwise find out by compiling or from its own launcher."""
    if world.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    try:
        import deepspeed
    except ModuleNotFoundError as error:
        raise ValueError(
            f"engine=zero{stage} needs DeepSpeed, which is not installed ({error}); pip install deepspeed, or "
            "choose engine=fsdp"
        ) from error
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # DeepSpeed calls torch's collectives by their old names, which torch says at each call.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    return deepspeed


def with_group(world: World) -> None:
    """DeepSpeed's collectives go to the run's own process group, with its patience; a single process gets one."""
    from deepspeed.utils import groups

    if world.size == 1 and not dist.is_initialized():
        dist.init_process_group(world.backend, store=dist.HashStore(), rank=0, world_size=1)
        atexit.register(dist.destroy_process_group)
    groups._WORLD_GROUP = dist.group.WORLD


def with_memory(deepspeed: ModuleType, network: nn.Module, config: ZeroConfig, device: torch.device) -> nn.Module:
    """The network with memory for its weights; in stage 3 for this rank's part of them, taken module by module."""
    if config.stage < 3:
        return network.to_empty(device=device)
    for module in reversed(list(network.modules())):  # what is inside a module comes after it
        module.to_empty(device=device, recurse=False)
        deepspeed.zero.Init(module=module, dtype=config.working, mem_efficient_linear=False)
    return network


def started(
    deepspeed: ModuleType,
    network: nn.Module,
    optimizer: torch.optim.Adam,
    config: ZeroConfig,
    shapes: Mapping[str, tuple[int, ...]],
) -> Any:
    """DeepSpeed's engine."""
    from deepspeed.runtime.engine import DeepSpeedEngine

    class WithZero(DeepSpeedEngine):
        """In bf16 with gradients in fp32, DeepSpeed would give stage 1 another kind of optimizer than in fp32."""

        def _do_optimizer_sanity_check(self, basic_optimizer: torch.optim.Optimizer) -> str:
            return "zero_optimization"

    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    settings = config.settings(max(sizes), sum(sizes))
    deepspeed.init_distributed(dist_init_required=False)
    parsed = deepspeed.DeepSpeedConfig(settings)
    return WithZero(args=None, model=network, optimizer=optimizer, config=settings, config_class=parsed)
