"""The plan of bedroom-large on 8, 64, 512 and 4096 ranks under every engine, as the tables of docs/scale.md."""

from __future__ import annotations

from collections.abc import Iterator

from hydra import compose, initialize_config_module

from configs.doors import PlanConfig
from configs.runs import to_value
from configs.schema import GROUPS, register
from trainer.plans.device import Device
from trainer.plans.memory import Memory
from trainer.plans.plan import Cluster, Held, Plan, held_by, planned
from trainer.plans.reading import even
from trainer.plans.table import readable

RANKS, IMAGES, A_NODE = (8, 64, 512, 4096), 8, 8  # images: of each rank
EXPERIMENT = "experiment=ddpm_lsun_bedroom_large"
# name → engine, and what else is chosen; {replicas} is one for each node
ENGINES = {
    "ddp": ("ddp",),
    "fsdp": ("fsdp",),
    "fsdp, a replica a node": ("fsdp", "engine.replicas={replicas}"),
    "zero1": ("zero1",),
    "zero2": ("zero2",),
    "zero2, offloaded": ("zero2", "engine.offload_optimizer=true"),
    "zero3": ("zero3",),
}
KINDS = ("weights", "copies", "passing", "gradients", "moments", "averages", "buffers")


def main() -> None:
    """Four tables: memory, traffic, checkpoints, reading."""
    register()
    with initialize_config_module("configs", version_base="1.3"):
        held = held_by(config_of("ddp", 1), IMAGES, Device.accelerator)
        plans = {key: plan_of(*key, held) for key in keys()}
    tables = {
        "engine | ranks | " + " | ".join(KINDS) + " | activations | device | host": memory_row,
        "engine | ranks | all-gather | reduce-scatter | all-reduce | sent in all": traffic_row,
        "engine | ranks | checkpoint files | bytes | largest file": checkpoint_row,
    }
    for header, row in tables.items():
        print(f"\n| {header} |\n|{'---|' * (header.count('|') + 1)}")
        for (name, ranks), plan in plans.items():
            print("| " + " | ".join([name, str(ranks), *row(plan)]) + " |")
    print(
        "\n| ranks | nodes | samples a node a step | their shards | shards in 1000 steps |\n|---|---|---|---|---|"
    )
    for ranks in RANKS:
        found = next(plan.reading for (_, size), plan in plans.items() if size == ranks)
        assert found is not None
        figures = (ranks, found.nodes, found.samples, f"{found.shards_a_step:.1f}", found.shards_in_steps)
        print("| " + " | ".join(map(str, figures)) + " |")


def keys() -> Iterator[tuple[str, int]]:
    """The rows."""
    for name, (engine, *_) in ENGINES.items():
        if engine in GROUPS["engine"]:
            yield from ((name, ranks) for ranks in RANKS)


def config_of(name: str, ranks: int) -> PlanConfig:
    """One row's."""
    engine, *more = ENGINES[name]
    chosen = [EXPERIMENT, f"engine={engine}", f"data.batch={IMAGES * ranks}", f"ranks={ranks}"]
    config: PlanConfig = to_value(
        compose("plan", [*chosen, *(each.format(replicas=max(1, ranks // A_NODE)) for each in more)])
    )
    return config


def plan_of(name: str, ranks: int, held: Held) -> Plan:
    """One row's; the reading, which no engine changes, is followed in the first engine's rows only."""
    config, first = config_of(name, ranks), name == next(keys())[0]
    shards = even(config.samples, config.samples_per_shard) if first else []
    return planned(config, Cluster(ranks, A_NODE), shards, config.steps, held)


def memory_row(plan: Plan) -> list[str]:
    """By kind; where the state is offloaded, its kinds are the host's."""
    device, host = plan.memory.device, plan.memory.host
    kinds = [readable(getattr(device, kind) + getattr(host, kind)) for kind in KINDS]
    return [
        *kinds,
        readable(device.activations),
        readable(device.total),
        readable(host.total) if host != Memory() else "",
    ]


def traffic_row(plan: Plan) -> list[str]:
    """By operation."""
    sums = {
        name: sum(each.sent for each in plan.traffic if each.operation == name)
        for name in ("all-gather", "reduce-scatter", "all-reduce")
    }
    return [readable(sent) if sent else "" for sent in sums.values()] + [readable(sum(sums.values()))]


def checkpoint_row(plan: Plan) -> list[str]:
    """Its files."""
    found = plan.checkpoint
    return [str(found.files), readable(found.total), readable(found.fullest)]


if __name__ == "__main__":
    main()
