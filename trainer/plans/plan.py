"""What a run takes on many ranks: a pure function of its configuration, which needs neither them nor its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from data_pipeline.order import check_micro_batches
from trainer.engines.network import on_meta
from trainer.plans.activations import Activations, activations
from trainer.plans.device import Device
from trainer.plans.memory import Memories, memories
from trainer.plans.reading import Reading, reading
from trainer.plans.saved import Saved, saved
from trainer.plans.traffic import Sent, traffic
from trainer.plans.weights import Weights
from trainer.run import Run

Held: TypeAlias = Mapping[str, Activations]


@dataclass(frozen=True)
class Cluster:
    """How many processes, and how many of them share a node. device: whose autocast the activations are of."""

    ranks: int = 1
    ranks_per_node: int = 8
    device: Device = Device.accelerator


@dataclass(frozen=True)
class Plan:
    """parameters: of the network. note: what of the configuration could not be planned as it stands, or nothing.

    micro_batch: images of a rank at a time. activations: kept and recomputed in the backward pass, or as chosen
    otherwise. memory: of the fullest rank. traffic: of one step. reading: None where samples are drawn.
    """

    parameters: int
    cluster: Cluster
    batch: int
    accumulation: int
    micro_batch: int
    note: str
    activations: Held
    memory: Memories
    traffic: list[Sent]
    checkpoint: Saved
    reading: Reading | None


def planned(run: Run, cluster: Cluster, shards: Sequence[int], steps: int, held: Held | None = None) -> Plan:
    """The plan, in which the reading of so many steps is followed. shards: their sizes; none of drawn samples.

    held: the activations, where they are known. Raises ValueError for what the engine would refuse.
    """
    ranks, accumulation, averages = cluster.ranks, run.engine.accumulation, len(run.ema.half_lives)
    network = on_meta(run.build_network)
    run.engine.check(network, ranks)
    layout, weights = run.engine.layout(ranks), Weights.of(network)
    batch, note = batch_of(run, ranks)
    micro_batch = batch // ranks // accumulation
    held = held or held_by(run, micro_batch, cluster.device)
    chosen = held["recomputed" if run.engine.checkpoint_activations else "kept"]
    return Plan(
        parameters=weights.count,
        cluster=cluster,
        batch=batch,
        accumulation=accumulation,
        micro_batch=micro_batch,
        note=note,
        activations=held,
        memory=memories(layout, weights, chosen, averages),
        traffic=traffic(layout, weights, accumulation),
        checkpoint=saved(layout, weights, averages),
        reading=read_by(run, batch, cluster, shards, steps) if shards else None,
    )


def read_by(run: Run, batch: int, cluster: Cluster, shards: Sequence[int], steps: int) -> Reading:
    """What a node reads of shards of these sizes, in the order that the run reads them in."""
    ranks, a_node, data = cluster.ranks, cluster.ranks_per_node, run.data
    return reading(shards, run.run.seed, batch, ranks, a_node, steps, data.window, data.lanes)


def held_by(run: Run, micro_batch: int, device: Device) -> Held:
    """The activations of a micro-batch of so many images, kept or recomputed."""
    configs = {
        name: replace(run.engine, checkpoint_activations=recomputed)
        for name, recomputed in (("kept", False), ("recomputed", True))
    }
    told = run.network.known_classes > 0
    return {
        name: activations(run.build_network, config, run.shape, micro_batch, told, device)
        for name, config in configs.items()
    }


def batch_of(run: Run, ranks: int) -> tuple[int, str]:
    """The batch that is planned, and why it is another than data.batch.

    Raises ValueError where data.batch is large enough for so many ranks and does not divide into them.
    """
    batch, accumulation = run.data.batch, run.engine.accumulation
    least = ranks * accumulation
    if batch < least:
        return least, (
            f"data.batch={batch} has no image for each of {ranks} ranks in {accumulation} micro-batches, and "
            f"launch.train would refuse it; this is the plan of data.batch={least}. Give a multiple of that"
        )
    check_micro_batches(batch, ranks, accumulation)
    return batch, ""
