"""What every engine does to a network before it trains it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.networks.initialization import initial
from trainer.engines.engine import EngineConfig, Precision
from trainer.shard import Shards


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The network as names and shapes, without memory."""
    with torch.device("meta"):
        return build()


def as_configured(network: nn.Module, config: EngineConfig) -> None:
    """Recomputes and compiles stage by stage, as chosen. Names of parameters stay the same."""
    # TF32 is no fp32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if config.compile:
        compile_stages(network)
    if config.checkpoint_activations:
        recompute_stages(network)


def fill(shards: Shards, network: nn.Module, seed: int) -> None:
    """Fills each shard with its part of the initial weights; the network is on the meta device."""
    for name, shard in shards.items():
        if shard.tensor.numel():
            shard.tensor.copy_(initial(network, name, seed, shard.start, shard.stop))


def compile_stages(network: nn.Module) -> None:
    """Compiles each of the network's stages, for the shapes that it meets.

    In isolation: stages of one class otherwise share a few compiled programs, and run as they are once those are
    used up. The forward alone: what an engine hangs on a stage to gather its weights stays outside.
    """
    for stage in network.stages():
        stage.forward = torch.compile(stage.forward, dynamic=False, isolate_recompiles=True)


def recompute_stages(network: nn.Module) -> None:
    """Activation checkpointing: the network's stages keep their inputs only."""
    for stage in network.stages():
        stage.forward = partial(checkpoint, stage.forward, use_reentrant=False)


def run(network: Callable[..., Tensor], config: EngineConfig, x: Tensor, *inputs: Tensor | None) -> Tensor:
    """The network's output, computed in the chosen precision and memory format."""
    if config.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision is Precision.bf16):
        return network(x, *inputs)
