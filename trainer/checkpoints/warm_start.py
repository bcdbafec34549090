"""Beginning with the weights of another run, or of an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from xxhash import xxh3_128_hexdigest

from trainer.checkpoints.architecture import check_names
from trainer.checkpoints.average import average_of, ema_kind, half_lives
from trainer.checkpoints.listing import Listing
from trainer.checkpoints.manifest import NAME, Manifest
from trainer.checkpoints.storage import load
from trainer.shard import Shards, copy_shards
from trainer.state import TrainState


@dataclass(frozen=True)
class Source:
    """path: of the checkpoint or the file. kind: of the weights that are taken. identity: as it was found."""

    path: Path
    kind: str
    identity: str

    def manifest(self) -> Manifest:
        """Raises ValueError where there is another checkpoint or file than was found."""
        if not self.path.exists() or identity(self.path) != self.identity:
            raise ValueError(f"{self.path} is not, or no longer, what the first rank found there")
        return Manifest.of_file(self.path) if self.path.is_file() else Manifest.read(self.path)


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

    def find(self) -> Source:
        """Where the weights lie now. Raises ValueError where they are not there."""
        path = Path(self.path)
        try:
            if path.is_file():
                if self.half_life:
                    raise ValueError(
                        "a file holds one set of weights, none of which warm_start.half_life="
                        f"{self.half_life:g} could choose; leave that at 0"
                    )
                return Source(path, "weights", identity(path))
            if (path / "checkpoints").is_dir():
                path = Listing(path / "checkpoints").latest()
            elif not (path / NAME).exists():
                raise ValueError("it is no run directory, no checkpoint and no .safetensors file")
            manifest = Manifest.read(path)
            half_life = self.half_life or first(manifest)
            average_of(manifest, half_life)
            return Source(path, ema_kind(half_life), identity(path))
        except ValueError as error:
            raise ValueError(f"warm_start.path={self.path}: {error}") from error

    def begin(self, state: TrainState, source: Source) -> None:
        """Fills the live weights that this rank owns. Raises ValueError where they are of another network."""
        weights = state.engine.shards()
        try:
            manifest = source.manifest()
            check_names("parameters", weights, manifest.of_kind(source.kind))
            load(manifest, {f"{source.kind}/{name}": shard for name, shard in weights.items()})
            check_finite(weights)
        except ValueError as error:
            raise ValueError(f"warm_start.path={self.path}: {error}") from error
        for half_life in state.ema.averages:
            copy_shards(weights, state.ema.shards(half_life))


def identity(path: Path) -> str:
    """What tells a checkpoint from another one: its manifest's checksum; of a file only its size."""
    if path.is_file():
        return f"{path.stat().st_size} bytes"
    return xxh3_128_hexdigest((path / NAME).read_bytes())


def check_finite(weights: Shards) -> None:
    """Raises ValueError for the first tensor that holds a number with which no run could begin."""
    for name, shard in weights.items():
        if not torch.isfinite(shard.tensor).all():
            raise ValueError(f"the weights of {name!r} are not all finite")


def first(manifest: Manifest) -> float:
    """The half-life of the run's first average. The first format does not tell which of several that is."""
    there = half_lives(manifest)
    if not there or (len(there) > 1 and ema_kind(there[0]) + ".safetensors" in manifest.files):
        raise ValueError(f"give warm_start.half_life, one of {', '.join(f'{each:g}' for each in there) or 'none'}")
    return there[0]
