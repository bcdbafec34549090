"""Beginning with the weights of another run, or of an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.checkpoints.architecture import check_names
from trainer.checkpoints.average import average_of, ema_kind, half_lives
from trainer.checkpoints.listing import Listing
from trainer.checkpoints.manifest import NAME, Manifest
from trainer.checkpoints.storage import load
from trainer.shard import copy_shards
from trainer.state import TrainState


@dataclass
class WarmStart:
    """path: of a run's directory, of one of its checkpoints, or of a .safetensors file; none starts afresh.

    half_life: of the average that is taken, or 0 for that run's first. Only weights are taken: the moments are
    zero, the averages begin as the weights, and no image has been seen. A run with a checkpoint of its own resumes
    from that instead.
    """

    path: str = ""
    half_life: float = 0.0

    def __post_init__(self) -> None:
        if self.half_life < 0:
            raise ValueError(f"warm_start.half_life must be at least 0, got {self.half_life}")

    def source(self) -> tuple[Manifest, str]:
        """Where the weights lie, and the kind that they are. Raises ValueError where they are not there."""
        path = Path(self.path)
        if path.is_file():
            return Manifest.of_file(path), "weights"
        if (path / NAME).exists():
            manifest = Manifest.read(path)
        elif (path / "checkpoints").is_dir():
            manifest = Manifest.read(Listing(path / "checkpoints").latest())
        else:
            raise ValueError("it is no run directory, no checkpoint and no .safetensors file")
        half_life = self.half_life or first(manifest)
        average_of(manifest, half_life)
        return manifest, ema_kind(half_life)

    def begin(self, state: TrainState) -> None:
        """Fills the live weights that this rank owns. Raises ValueError where they are of another network."""
        weights = state.engine.shards()
        try:
            manifest, kind = self.source()
            check_names("parameters", weights, manifest.of_kind(kind))
            load(manifest, {f"{kind}/{name}": shard for name, shard in weights.items()})
        except ValueError as error:
            raise ValueError(f"warm_start.path={self.path}: {error}") from error
        for half_life in state.ema.averages:
            copy_shards(weights, state.ema.shards(half_life))


def first(manifest: Manifest) -> float:
    """The half-life of the run's first average. The first format does not tell which of several that is."""
    there = half_lives(manifest)
    if not there or (len(there) > 1 and ema_kind(there[0]) + ".safetensors" in manifest.files):
        raise ValueError(f"give warm_start.half_life, one of {', '.join(f'{each:g}' for each in there) or 'none'}")
    return there[0]
