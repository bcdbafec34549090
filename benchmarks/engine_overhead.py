"""A step through our engines against a bare loop around the libraries below them, with the same settings.

python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.engine_overhead
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from benchmarks.interleave import interleave, publish, ratio
from models.networks.unet import UNetConfig
from trainer.distributed import World
from trainer.engines.ddp import DdpConfig
from trainer.engines.engine import EngineConfig
from trainer.engines.fsdp import FsdpConfig
from trainer.engines.local import initialized
from trainer.engines.zero import Zero2Config, Zero3Config, ZeroConfig, prepared
from trainer.optimizers import OptimizerConfig

RATE, CLIP = 2e-4, 1.0
TARGET = 0.97  # our layer may cost 3 %
Step = Callable[[], object]
Bare = Callable[[Callable[[], nn.Module], int, World], Step]


def network(channels: int) -> Callable[[], nn.Module]:
    """A U-Net of the CIFAR-10 shape, with so many channels."""
    return lambda: UNetConfig(channels).build(3, 32)


def inputs(batch: int, world: World) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, t and what the network is to say."""
    generator = torch.Generator().manual_seed(world.rank)
    x, target = (torch.randn(batch, 3, 32, 32, generator=generator).to(world.device) for _ in range(2))
    return x, torch.randint(1, 1001, (batch,), generator=generator).to(world.device), target


def ours(config: EngineConfig, build: Callable[[], nn.Module], batch: int, world: World) -> Step:
    """A step through the engine."""
    engine = config.build(build, OptimizerConfig(), 0, world)
    x, t, target = inputs(batch, world)

    def step() -> None:
        engine.backward((engine(x, t).float() - target).square().mean(), last=True)
        engine.step(RATE)

    return step


def adam_of(module: nn.Module) -> torch.optim.Adam:
    """The engines' optimizer."""
    return torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=0.0, fused=True)


def bare(module: nn.Module, batch: int, world: World) -> Step:
    """A step as the library's own examples make it."""
    adam = adam_of(module)
    x, t, target = inputs(batch, world)

    def step() -> None:
        with torch.autocast(world.device.type, torch.bfloat16):
            output = module(x, t)
        (output.float() - target).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        adam.step()
        adam.zero_grad()

    return step


def bare_ddp(made: nn.Module, world: World) -> nn.Module:
    """DistributedDataParallel with the engine's settings."""
    return DistributedDataParallel(made, gradient_as_bucket_view=True, bucket_cap_mb=100)


def bare_fsdp(made: nn.Module, world: World) -> nn.Module:
    """FSDP2 with the engine's settings."""
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for stage in made.stages():
        fully_shard(stage, mesh=mesh, mp_policy=policy)
    return fully_shard(made, mesh=mesh, mp_policy=policy, reshard_after_forward=False)


def bare_zero(kind: type[ZeroConfig]) -> Bare:
    """DeepSpeed with the engine's settings and its own clipping."""

    def made(build: Callable[[], nn.Module], batch: int, world: World) -> Step:
        deepspeed = prepared(world, kind.stage)
        whole = initialized(build, 0, world.device)
        sizes = [parameter.numel() for parameter in whole.parameters()]
        settings = kind().settings(max(sizes), sum(sizes)) | {"gradient_clipping": CLIP}
        engine, *_ = deepspeed.initialize(
            model=whole, optimizer=adam_of(whole), config=settings, dist_init_required=False
        )
        x, t, target = inputs(batch, world)

        def step() -> None:
            with torch.autocast(world.device.type, torch.bfloat16):
                output = engine(x, t)
            engine.backward((output.float() - target).square().mean())
            engine.step()

        return step

    return made


def wrapped(wrap: Callable[[nn.Module, World], nn.Module]) -> Bare:
    """A bare loop around a module that the library wraps."""
    return lambda build, batch, world: bare(wrap(initialized(build, 0, world.device), world), batch, world)


# engine → its config, and what it is compared with.
PAIRS = {
    "ddp": (DdpConfig, wrapped(bare_ddp), "bare DistributedDataParallel"),
    "fsdp": (FsdpConfig, wrapped(bare_fsdp), "bare FSDP2"),
    "zero2": (Zero2Config, bare_zero(Zero2Config), "bare DeepSpeed"),
    "zero3": (Zero3Config, bare_zero(Zero3Config), "bare DeepSpeed"),
}


def main() -> None:
    """Each engine and its peer, turn by turn, on every rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--engines", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    options = parser.parse_args()
    world, ratios, build = World.from_environment(), [], network(options.channels)
    with world.joined(600.0):
        for name in options.engines:
            config, peer, what = PAIRS[name]
            ways = {
                "ours": ours(config(clip_norm=CLIP), build, options.batch, world),
                "theirs": peer(build, options.batch, world),
            }
            seconds = interleave(ways, options.turns)
            size = f"{options.channels} channels, batch {options.batch} each"
            claim = f"step under engine={name}, {world.size} ranks, {size}, bf16"
            ratios.append(ratio(claim, what, TARGET, seconds["theirs"], seconds["ours"]))
    if world.is_main:
        publish("engine_overhead", ratios)


if __name__ == "__main__":
    main()
