"""What a checkpoint holds of a state."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.checkpoints.average import ema_kind
from trainer.distributed import World
from trainer.shard import Shard, Shards
from trainer.state import TrainState
from trainer.versions import versions


@dataclass(frozen=True)
class Standing:
    """Where a run stands as it is saved."""

    images: int
    cursor: int
    data: str

    @classmethod
    def of(cls, state: TrainState) -> Standing:
        """Now."""
        return cls(state.images, state.cursor, state.data)


def about(state: TrainState, world: World, config: str) -> dict[str, object]:
    """What a checkpoint tells of what it was made with. config: the text of the run's config.yaml."""
    return {
        "engine": state.engine.config.name,
        "ranks": world.size,
        "versions": versions(),
        "config": config,
    }


def kinds_of(state: TrainState) -> dict[str, Shards]:
    """kind → name → what this rank owns of it, live: all of the engine's, and each average."""
    averages = {ema_kind(half_life): state.ema.shards(half_life) for half_life in state.ema.averages}
    return {**state.engine.state(), **averages}


def everything_in(state: TrainState) -> dict[str, Shard]:
    """The same by kind/name."""
    return {f"{kind}/{name}": shard for kind, named in kinds_of(state).items() for name, shard in named.items()}
