"""What each node downloads in an epoch of LSUN bedroom, by the order's lanes and windows and its cache.

A simulation: the order is asked which samples each node reads step by step, and a cache that gives up what was
used least recently is followed. Nothing is downloaded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain

import numpy as np

from data_pipeline.order import Order
from trainer.plans.reading import even

SIZES = even(3_033_042, 1_000)
GIGABYTES = 43 / len(SIZES)  # of a shard
BATCH, A_NODE = 4_096, 8
CACHES = (0.5, 2, 8, 32)  # gigabytes
FOLLOWED = 2  # nodes whose caches are followed
Shards = Sequence[Sequence[int]]


def main() -> None:
    """A row for each cluster and order."""
    caches = " | ".join(f"{size:g} GB" for size in CACHES)
    print(f"| nodes | ranks | window | lanes | reads | of its share | in use at once | {caches} |")
    print("|" + "---|" * (7 + len(CACHES)))
    for nodes in (1, 8, 64):
        for window, lanes in dict.fromkeys(((0, 1), (16, 1), (16, nodes), (16, 64))):
            print(row(nodes, window, lanes), flush=True)
    print(
        f"{len(SIZES):,} shards of 1,000 images, 43 GB; global batch {BATCH:,}.\n"
        "reads: what a node reads in an epoch, mean over the nodes, and this over 1/nodes of all, the least there "
        "is.\nin use at once: the shards, at most, that a node has read from and will read from again in the "
        "epoch.\nThe last columns: what a node downloads in its second epoch through a cache of so many gigabytes "
        f"that has seen the first, mean of the first {FOLLOWED} nodes; what is over its reads is fetched again."
    )


def row(nodes: int, window: int, lanes: int) -> str:
    """What the nodes read in one epoch, and download in the next."""
    order = Order(0, SIZES, window, lanes)
    first, second = (read(order, nodes, epoch) for epoch in range(2))
    reads = float(np.mean([len({*chain(*node)}) for node in second])) * GIGABYTES
    use = max(map(in_use, second)) * GIGABYTES
    followed = list(zip(first, second, strict=True))[:FOLLOWED]
    downloads = [
        float(np.mean([downloaded(*epochs, capacity=int(size / GIGABYTES)) for epochs in followed])) * GIGABYTES
        for size in CACHES
    ]
    figures = " | ".join(f"{value:,.1f} GB" for value in (reads, use, *downloads))
    figures = figures.replace("GB", f"GB | {reads * nodes / 43:.2f}x", 1)
    return f"| {nodes} | {nodes * A_NODE} | {window or 'all'} | {lanes} | {figures} |"


def read(order: Order, nodes: int, epoch: int) -> list[Shards]:
    """Of each node, the shards that it reads from in each step of an epoch."""
    found: list[list[list[int]]] = [[] for _ in range(nodes)]
    begin, end = epoch * order.size, (epoch + 1) * order.size
    for cursor in range(begin // BATCH * BATCH, end, BATCH):
        positions = order.positions(cursor, BATCH, 0, 1)  # the shares of all ranks, one after the other
        shards = np.where((begin <= positions) & (positions < end), order.shards(order.samples(positions)), -1)
        for node, share in zip(found, np.split(shards, nodes), strict=True):
            node.append([shard for shard in dict.fromkeys(share.tolist()) if shard >= 0])
    return found


def in_use(steps: Shards) -> int:
    """How many shards, at most, have been read from and will be again."""
    last = {shard: step for step, shards in enumerate(steps) for shard in shards}
    held, most = set[int](), 0
    for step, shards in enumerate(steps):
        held.update(shards)
        most = max(most, len(held))
        held.difference_update([shard for shard in shards if last[shard] == step])
    return most


def downloaded(before: Shards, steps: Shards, capacity: int) -> int:
    """How often a shard is fetched in these steps, by a cache of so many shards that has seen those before."""
    kept: OrderedDict[int, None] = OrderedDict()
    fetched = 0
    for number, shards in enumerate((*before, *steps)):
        for shard in shards:
            if shard in kept:
                kept.move_to_end(shard)
                continue
            fetched += number >= len(before)
            kept[shard] = None
            if len(kept) > capacity:
                kept.popitem(last=False)
    return fetched


if __name__ == "__main__":
    main()
