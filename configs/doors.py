"""What the doors other than training may be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from models.samplers import Sampler

Source = Enum("Source", ["digits", "photographs", "folder"])


@dataclass
class PackConfig:
    """source: digits, photographs (both with real images at hand) or folder. out: the folder of shards.

    path: the image folder. resolution: digits are 8; photographs are cropped to it; folders are centre-cropped and
    resized to it, or passed through untouched at 0. count: how many crops of photographs to train on; a tenth as
    many are held out. seed: of the crops.
    """

    source: Source = "???"  # type: ignore[assignment]
    out: str = "???"
    path: str = ""
    resolution: int = 0
    channels: int = 3
    count: int = 10_000
    seed: int = 0
    samples_per_shard: int = 1_000


@dataclass
class Directory:
    """directory: of a run."""

    directory: str = "???"


@dataclass
class GenerateConfig:
    """What is drawn from a run's averaged weights.

    checkpoint: the images it had seen, or 0 for the latest. half_life: of the average, or 0 for the run's first.
    sampler: the run's own unless one is chosen. batch: how many images are drawn at once; it changes no image.
    seed: of the images' noise.
    """

    run: Directory = field(default_factory=Directory)
    checkpoint: int = 0
    half_life: float = 0.0
    sampler: Sampler | None = None
    batch: int = 256
    seed: int = 0
    count: int = 0

    def __post_init__(self) -> None:
        for name, least in (("checkpoint", 0), ("half_life", 0), ("batch", 1), ("count", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass
class SampleConfig(GenerateConfig):
    """count, start: images number start .. start + count - 1 are drawn. out: where they are written."""

    count: int = 64
    start: int = 0
    out: str = ""


@dataclass
class EvaluateConfig(GenerateConfig):
    """held_out: shards of real images that the run was not trained on; drawn data needs none.

    count: how many samples are scored; 0 for as many as are held out, or 10,000 of drawn data.
    """

    held_out: str = ""
