"""The plan of a run against what an engine really holds and sends, on real ranks or on simulated ones.

    torchrun --nproc-per-node 4 -m benchmarks.plan_check fsdp zero3
    python -m benchmarks.plan_check fsdp --simulated 512

Simulated ranks are this process as one of so many, in a group whose collectives send nothing; ddp, and fsdp in
replicas, cannot run in one. Images are tiny: no figure depends on their size.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from hydra import compose, initialize_config_module
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from configs.runs import to_value
from configs.schema import register
from trainer.distributed import World
from trainer.ema import Ema
from trainer.engines.engine import MOMENTS, Engine
from trainer.engines.network import on_meta
from trainer.plans.memory import copies
from trainer.plans.traffic import traffic
from trainer.plans.weights import Weights
from trainer.run import Run
from trainer.shard import Shards

HEADER = (
    "| engine | ranks | rank | figure | planned | measured | measured / planned |\n|---|---|---|---|---|---|---|"
)

# The operations that a group's calls end in, with the argument that is the whole tensor.
OPERATIONS = {
    "_allgather_base_": ("all-gather", 0),
    "allgather_into_tensor_coalesced_": ("all-gather", 0),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    "reduce_scatter_tensor_coalesced_": ("reduce-scatter", 1),
    "allreduce_": ("all-reduce", 0),
    "allreduce_coalesced_": ("all-reduce", 0),
}
SMALL = 1024  # bytes; norms and flags are not planned


def main() -> None:
    """Each engine that is named, on the ranks that torchrun started or on simulated ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+")
    parser.add_argument("--experiment", default="ddpm_cifar10")
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--simulated", type=int, default=0, help="ranks")
    parser.add_argument("--rank", type=int, default=0, help="of the simulated ranks, this one")
    parser.add_argument("--override", action="append", default=[], help="key=value, as to launch.train")
    options = parser.parse_args()
    world = World(options.rank, options.simulated) if options.simulated else World.from_environment()
    with simulated(world) if options.simulated else world.joined(600):
        if world.is_main or options.simulated:
            print(HEADER)
        for name in options.engines:
            check(name, run_of(name, options), world, bool(options.simulated))


def run_of(engine: str, options: argparse.Namespace) -> Run:
    """The experiment under this engine."""
    register()
    chosen = [
        f"experiment={options.experiment}",
        f"engine={engine}",
        f"engine.accumulation={options.accumulation}",
    ]
    with initialize_config_module("configs", version_base="1.3"):
        run: Run = to_value(compose("train", [*chosen, *options.override]))
    return run


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Within it this process is one rank of a world that has no others."""
    dist.init_process_group("fake", store=FakeStore(), rank=world.rank, world_size=world.size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def check(name: str, run: Run, world: World, alone: bool) -> None:
    """A row for each figure: of every real rank, or of the simulated one."""
    engine = run.engine.build(run.build_network, run.optimizer, run.run.seed, world)
    ema = Ema(engine.shards(), run.ema.half_lives)
    held = measured(engine, ema)
    sent = carried(engine, run)
    rows = [world.rank, planned(run, world), held | sent]
    for rank, plan, found in [rows] if alone else world.everyones(rows):
        for figure in plan if world.is_main or alone else ():
            expected, really = plan[figure], found.get(figure, 0)
            ratio = f"{really / expected:.4f}" if expected else "-"
            print(
                f"| {name} | {world.size} | {rank} | {figure} | {expected:,} | {really:,} | {ratio} |", flush=True
            )


def planned(run: Run, world: World) -> dict[str, int]:
    """Bytes of this rank's fp32 weights, moments and averages, and those that collectives carry in a step."""
    layout, weights = run.engine.layout(world.size), Weights.of(on_meta(run.build_network))
    owned = 4 * layout.state.count(weights.shapes, world.rank % layout.state.ways)
    figures = {"weights": owned, "moments": 2 * owned, "averages": len(run.ema.half_lives) * owned}
    figures["copies"] = copies(layout, weights)
    for each in traffic(layout, weights, run.engine.accumulation):
        figures[each.operation] = figures.get(each.operation, 0) + each.times * each.carried
    return figures


def measured(engine: Engine, ema: Ema) -> dict[str, int]:
    """Bytes of what this rank holds."""
    state = engine.state()
    return {
        "weights": bytes_of(state["parameters"]),
        "moments": sum(bytes_of(state[kind]) for kind in MOMENTS),
        "averages": sum(bytes_of(ema.shards(half_life)) for half_life in ema.averages),
        "copies": copies_of(engine),
    }


def copies_of(engine: Engine) -> int:
    """Bytes of the weights that the network runs on and that are not those of the state."""
    tensors = [local(parameter) for parameter in engine.network.parameters()]
    tensors += [
        parameter.ds_tensor for parameter in engine.network.parameters() if hasattr(parameter, "ds_tensor")
    ]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    own = {shard.tensor.untyped_storage().data_ptr() for shard in engine.shards().values()}
    return sum(size for place, size in storages.items() if place not in own)


def local(parameter: torch.Tensor) -> torch.Tensor:
    """What is here of it."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def bytes_of(shards: Shards) -> int:
    """Of all of them."""
    return sum(shard.tensor.nbytes for shard in shards.values())


class Carried(TorchDispatchMode):
    """Within it the bytes of every collective of at least so many are counted, by operation."""

    def __init__(self, least: int = SMALL) -> None:
        super().__init__()
        self.least, self.bytes = least, Counter[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "c10d" and func._opname in OPERATIONS:
            operation, whole = OPERATIONS[func._opname]
            tensors = args[whole] if isinstance(args[whole], (list, tuple)) else [args[whole]]
            size = sum(tensor.nbytes for tensor in tensors)
            self.bytes[operation] += size if size >= self.least else 0
        return func(*args, **(kwargs or {}))


def carried(engine: Engine, run: Run) -> dict[str, int]:
    """Bytes of the collectives of one step, by operation; the steps before it may still be finding their way."""
    for _ in range(2):
        step(engine, run)
    with Carried() as counted:
        step(engine, run)
    return dict(counted.bytes)


def step(engine: Engine, run: Run) -> None:
    """On one tiny image in each micro-batch."""
    side = 2 ** (len(run.network.multipliers) - 1)
    for number in range(engine.accumulation):
        x, t = torch.zeros(1, run.data.channels, side, side), torch.ones(1, dtype=torch.int64)
        engine.backward(engine(x, t).float().square().mean(), last=number == engine.accumulation - 1)
    engine.step(0.0)


if __name__ == "__main__":
    main()
