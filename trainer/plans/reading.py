"""The shards that one node reads from, by the order in which samples come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from data_pipeline.order import Order


@dataclass(frozen=True)
class Reading:
    """What the node of the first ranks reads. shards: in all; those of a step are the mean over so many steps."""

    nodes: int
    steps: int
    samples: int
    shards: int
    shards_a_step: float
    shards_in_steps: int


def reading(
    sizes: Sequence[int],
    seed: int,
    batch: int,
    ranks: int,
    ranks_per_node: int,
    steps: int,
    window: int = 0,
    lanes: int = 1,
) -> Reading:
    """What the order says of the first so many global batches of shards that hold `sizes` samples."""
    order, here = Order(seed, sizes, window, lanes), min(ranks, ranks_per_node)
    a_step = [np.unique(order.shards(samples)) for samples in samples_of(order, batch, ranks, here, steps)]
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


def even(samples: int, each: int) -> list[int]:
    """The sizes of shards of `each` samples, of which the last holds what is left."""
    return [min(each, samples - start) for start in range(0, samples, each)]
