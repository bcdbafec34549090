"""What the doors other than training may be told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from models.samplers import Sampler

Source = Enum("Source", ["digits", "photographs", "folder"])


@dataclass
class PackConfig:
    """source: digits, photographs (both with real images at hand) or folder. out: the folder of shards.

    Of photographs: count, how many crops to train on (10,000; a tenth as many are held out); resolution of the
    crops in pixels (32); seed of their places (0). Of folder: path of the images; resolution to centre-crop and
    resize them to (none: files pass through untouched); channels (3).
    """

    source: Source = "???"  # type: ignore[assignment]
    out: str = "???"
    path: str | None = None
    resolution: int | None = None
    channels: int | None = None
    count: int | None = None
    seed: int | None = None
    samples_per_shard: int = 1_000


@dataclass
class Directory:
    """directory: of a run."""

    directory: str = "???"


@dataclass
class OwnSampler:
    """The sampler that the run was configured with, save for what is given here."""

    steps: int | None = None
    clip: bool | None = None
    eta: float | None = None

    def over(self, sampler: Sampler) -> Sampler:
        """The run's sampler with these changes. Raises ValueError for a field that it does not have."""
        changes = {name: value for name, value in vars(self).items() if value is not None}
        unknown = sorted(changes.keys() - vars(sampler).keys())
        if unknown:
            raise ValueError(
                f"sampler.{unknown[0]}: the run's sampler, {sampler}, has no such field; choose sampler=…"
            )
        return replace(sampler, **changes)


@dataclass
class RestoreConfig:
    """A run's averaged weights, and how images go through them.

    checkpoint: the images it had seen, or 0 for the latest. half_life: of the average, or 0 for the run's first.
    batch: how many images are handled at once; it changes no image. seed: of the images' noise.
    """

    run: Directory = field(default_factory=Directory)
    checkpoint: int = 0
    half_life: float = 0.0
    batch: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("checkpoint", 0), ("half_life", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass
class FigureConfig(RestoreConfig):
    """figure: which, with its own fields."""

    figure: Any = "???"


@dataclass
class CountedConfig(RestoreConfig):
    """count: of images."""

    count: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 0:
            raise ValueError(f"count must be at least 0, got {self.count}")


@dataclass
class GenerateConfig(CountedConfig):
    """sampler: the run's own unless another is chosen."""

    sampler: Any = "???"


@dataclass
class SampleConfig(GenerateConfig):
    """count, start: images number start .. start + count - 1 are drawn. out: where they are written."""

    count: int = 64
    start: int = 0
    out: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1 or self.start < 0:
            raise ValueError(f"count must be at least 1 and start at least 0, got {self.count} and {self.start}")


@dataclass
class EvaluateConfig(GenerateConfig):
    """held_out: shards of real images that the run was not trained on; drawn data needs none.

    count: how many samples are scored; 0 for as many as are held out, or 10,000 of drawn data.
    """

    held_out: str = ""


@dataclass
class BitsConfig(CountedConfig):
    """shards: of the images whose likelihood is bounded. count: how many, in stored order; 0 for all.

    clip: hold x̂_0 within [-1, 1], as the official code does. floor: the least probability of a pixel's value in
    the decoder; 0 is exact, the official code has 1e-12.
    """

    shards: str = "???"
    clip: bool = True
    floor: float = 0.0
