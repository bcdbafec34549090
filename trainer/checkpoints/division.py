"""Which rank writes what: each element once, and about as many elements on each rank."""

from __future__ import annotations

import math

from trainer.distributed import World
from trainer.shard import Shards


def division(world: World, shards: Shards) -> dict[str, int]:
    """The rank that writes each of the shards which this one holds, empty ones left out. Every rank calls it.

    What one rank alone holds it writes itself. What several hold goes, the largest first, to the one among them
    that has least to write.
    """
    spans = world.everyones([(shard.start, shard.stop) for shard in shards.values()])
    holders: dict[tuple[str, int, int], list[int]] = {}
    for rank, of_rank in enumerate(spans):
        for key, (start, stop) in zip(shards, of_rank, strict=True):
            if start < stop:
                holders.setdefault((key, start, stop), []).append(rank)
    check_covered(shards, holders)
    load, writer = [0] * world.size, {}
    for piece in sorted(holders, key=lambda piece: (len(holders[piece]) > 1, piece[1] - piece[2])):
        _, start, stop = piece
        rank = min(holders[piece], key=lambda rank: load[rank])
        load[rank] += stop - start
        writer[piece] = rank
    return {key: writer[key, shard.start, shard.stop] for key, shard in shards.items() if shard.start < shard.stop}


def check_covered(shards: Shards, pieces: dict[tuple[str, int, int], list[int]]) -> None:
    """Whatever the engine, the pieces of all ranks together are each element of each tensor once."""
    reached = dict.fromkeys(shards, 0)
    for key, start, stop in sorted(pieces):
        assert start == reached[key], f"{key}: a piece begins at {start} and the one before ends at {reached[key]}"
        reached[key] = stop
    for key, shard in shards.items():
        assert reached[key] == math.prod(shard.shape), f"{key}: {reached[key]} elements of {shard.shape}"
