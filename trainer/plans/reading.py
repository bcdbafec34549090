"""The shards that one node reads from, by the order in which samples come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from data_pipeline.order import Order
from data_pipeline.shards import ShardSet


@dataclass(frozen=True)
class Reading:
    """What the node of the first ranks reads. shards: in all; those of a step are the mean over so many steps."""

    nodes: int
    steps: int
    samples: int
    shards: int
    shards_a_step: float
    shards_in_steps: int


def reading(sizes: Sequence[int], seed: int, batch: int, ranks: int, ranks_per_node: int, steps: int) -> Reading:
    """What the order says of the first so many global batches of shards that hold `sizes` samples."""
    starts = np.concatenate(([0], np.cumsum(sizes)))
    order, here = Order(seed, int(starts[-1])), min(ranks, ranks_per_node)
    a_step = [np.unique(shards_of(samples, starts)) for samples in samples_of(order, batch, ranks, here, steps)]
    return Reading(
        nodes=-(-ranks // ranks_per_node),
        steps=steps,
        samples=batch // ranks * here,
        shards=len(sizes),
        shards_a_step=sum(map(len, a_step)) / steps,
        shards_in_steps=len(np.unique(np.concatenate(a_step))),
    )


def samples_of(order: Order, batch: int, ranks: int, here: int, steps: int) -> Iterator[Int64[np.ndarray, " n"]]:
    """What the ranks 0 .. here - 1 read in each of the first steps."""
    for step in range(steps):
        yield order.samples(
            np.concatenate([order.positions(step * batch, batch, rank, ranks) for rank in range(here)])
        )


def shards_of(samples: Int64[np.ndarray, " n"], starts: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " n"]:
    """The number of the shard of each sample."""
    return np.searchsorted(starts, samples, side="right") - 1


def even(samples: int, each: int) -> list[int]:
    """The sizes of shards of `each` samples, of which the last holds what is left."""
    return [min(each, samples - start) for start in range(0, samples, each)]


def sizes_of(shards: ShardSet) -> list[int]:
    """How many samples each shard holds."""
    if shards.manifest:
        return [entry.samples for entry in shards.manifest.shards]
    return [len(shards.index(number)) for number in range(len(shards.shards))]
