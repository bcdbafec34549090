"""What a checkpoint holds of a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.checkpoints.average import ema_kind
from trainer.distributed import World
from trainer.shard import Shard, Shards
from trainer.state import TrainState
from trainer.versions import versions


@dataclass(frozen=True)
class Place:
    """Where a run stands as it is saved, and what it was made with."""

    images: int
    cursor: int
    data: str
    about: Mapping[str, object]

    @classmethod
    def of(cls, state: TrainState, world: World, config: Path) -> Place:
        """Now. config: the run's config.yaml, if it has one."""
        about: dict[str, object] = {
            "engine": state.engine.config.name,
            "ranks": world.size,
            "versions": versions(),
            "config": config.read_text() if config.exists() else "",
        }
        return cls(state.images, state.cursor, state.data, about)


def kinds_of(state: TrainState) -> dict[str, Shards]:
    """kind → name → what this rank owns of it, live: all of the engine's, and each average."""
    averages = {ema_kind(half_life): state.ema.shards(half_life) for half_life in state.ema.averages}
    return {**state.engine.state(), **averages}


def everything_in(state: TrainState) -> dict[str, Shard]:
    """The same by kind/name."""
    return {f"{kind}/{name}": shard for kind, named in kinds_of(state).items() for name, shard in named.items()}
