"""The averaged weights in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from trainer.checkpoints.architecture import Shaped, check_names
from trainer.checkpoints.manifest import Manifest, Saved
from trainer.checkpoints.storage import load
from trainer.shard import Shard

PREFIX = "ema-"


def ema_kind(half_life: float) -> str:
    """The kind that an average is kept under: with enough digits that no two half-lives share it."""
    return f"{PREFIX}{half_life:.17g}"


def half_lives(manifest: Manifest) -> list[float]:
    """Of the averages that it holds."""
    return [float(kind.removeprefix(PREFIX)) for kind in manifest.kinds if kind.startswith(PREFIX)]


def average_of(manifest: Manifest, half_life: float) -> Mapping[str, Saved]:
    """The average of `half_life`. Raises ValueError where it was not kept."""
    kind = ema_kind(half_life)
    if kind not in manifest.kinds and f"{kind}.safetensors" not in manifest.files:
        there = ", ".join(f"{each:g}" for each in half_lives(manifest)) or "none"
        raise ValueError(
            f"{manifest.directory} holds no average with the half-life {half_life:g}; it holds {there}"
        )
    return manifest.of_kind(kind)


def load_average(checkpoint: Path, half_life: float, shapes: Mapping[str, Shaped]) -> dict[str, Tensor]:
    """The averaged weights in a checkpoint, on the CPU, checked against `shapes`: for one process by itself."""
    manifest = Manifest.read(checkpoint)
    check_names("averages", shapes, average_of(manifest, half_life))
    weights = {name: torch.empty(tuple(each.shape)) for name, each in shapes.items()}
    load(manifest, {f"{ema_kind(half_life)}/{name}": Shard.of_whole(each) for name, each in weights.items()})
    return weights


def identity(checkpoint: Path, half_life: float) -> object:
    """What tells an average from every other one: the checksums that it was saved with."""
    manifest = Manifest.read(checkpoint)
    average = average_of(manifest, half_life)
    first_format = manifest.files.get(f"{ema_kind(half_life)}.safetensors")
    return first_format or [
        (name, [(chunk.start, chunk.checksums) for chunk in saved.chunks]) for name, saved in average.items()
    ]
