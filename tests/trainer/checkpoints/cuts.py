"""Engines that hold nothing but shards, cut any way: what a checkpoint sees of ddp, fsdp and zero."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from trainer.checkpoints.checkpoints import Checkpoints
from trainer.checkpoints.warm_start import WarmStart
from trainer.ema import Ema
from trainer.engines.engine import MOMENTS
from trainer.engines.local import LocalConfig
from trainer.shard import Shard, Shards
from trainer.state import TrainState

SHAPES = {"in.weight": (7, 3, 3), "in.bias": (7,), "scale": (), "big.weight": (300, 1001), "out.bias": (1,)}
HALF_LIVES = (100.0, 5000.0)


def span(kind: str, number: int, count: int, rank: int, size: int) -> tuple[int, int]:
    """The elements that `rank` owns of tensor `number`: everything, rows, or any stretch, with empty ones."""
    if kind == "replicated":
        return 0, count
    if kind == "hybrid":  # pairs of ranks hold the same half
        half = -(-count // 2)
        return min(count, half * (rank % 2)), min(count, half * (rank % 2 + 1))
    if kind == "rows":
        piece = -(-count // size)
        return min(count, piece * rank), min(count, piece * (rank + 1))
    generator = torch.Generator().manual_seed(number * 100 + size)
    cuts = sorted(torch.randint(count + 1, (size - 1,), generator=generator).tolist())
    return [0, *cuts, count][rank], [0, *cuts, count][rank + 1]


def whole(kind: str, name: str, seed: int) -> Tensor:
    """What the tensor holds, the same for every cut."""
    generator = torch.Generator().manual_seed(seed * 1000 + sum(map(ord, kind + name)))
    return torch.randn(SHAPES.get(name, ()), generator=generator)


class Cut:
    """As much of an engine as a checkpoint meets. seed: of what it holds."""

    def __init__(self, kind: str, rank: int, size: int, seed: int) -> None:
        self.refreshed, self.seed, self.config = 0, seed, LocalConfig()
        self._state: dict[str, Shards] = {each: self.shards_of(each, kind, rank, size) for each in self.kinds}
        self._state["steps"] = {"optimizer": Shard.of_whole(torch.full((), float(seed)))}

    kinds = ("parameters", *MOMENTS)

    def shards_of(self, what: str, kind: str, rank: int, size: int) -> Shards:
        found = {}
        for number, (name, shape) in enumerate(SHAPES.items()):
            start, stop = span(kind, number, math.prod(shape), rank, size)
            found[name] = Shard(whole(what, name, self.seed).flatten()[start:stop].clone(), start, shape)
        return found

    def state(self) -> dict[str, Shards]:
        return self._state

    def shards(self) -> Shards:
        return self._state["parameters"]

    def refresh(self) -> None:
        self.refreshed += 1


def state(kind: str, rank: int, size: int, seed: int) -> TrainState:
    """A state whose every number is a function of the seed."""
    engine = Cut(kind, rank, size, seed)
    found = TrainState(engine, Ema(engine.shards(), HALF_LIVES), "data", images=8 * seed, cursor=9 * seed)
    for half_life in HALF_LIVES:
        for name, shard in found.ema.shards(half_life).items():
            shard.tensor.copy_(whole(f"ema-{half_life}", name, seed).flatten()[shard.start : shard.stop])
    return found


def wrong(found: TrainState, seed: int) -> list[str]:
    """Every shard of the state that is not, bit for bit, what the seed says."""
    kinds = {**found.engine.state(), **{f"ema-{each}": found.ema.shards(each) for each in HALF_LIVES}}
    expected = {
        (kind, name): whole(kind, name, seed).flatten() if kind != "steps" else torch.tensor([float(seed)])
        for kind, named in kinds.items()
        for name in named
    }
    return [
        f"{kind}/{name}[{shard.start}:{shard.stop}]"
        for kind, named in kinds.items()
        for name, shard in named.items()
        if not torch.equal(shard.tensor, expected[kind, name][shard.start : shard.stop])
    ]


def saved(checkpoints: Checkpoints, of: TrainState) -> Path:
    """Saves, and waits until it is committed."""
    target = checkpoints.save(of)
    checkpoints.wait()
    return target


def begin(state: TrainState, path: Path, half_life: float = 0.0) -> None:
    """A warm start of one process."""
    warm_start = WarmStart(str(path), half_life)
    warm_start.begin(state, warm_start.find())
