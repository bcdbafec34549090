"""What the packing door may be told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from data_pipeline.config import OnError
from data_pipeline.preparation import Check, Format

Task = Enum("Task", ["pack", "verify", "repair", "describe"])
Source = Enum("Source", ["digits", "photographs", "folder", "mnist", "cifar10", "lsun", "tar", "huggingface"])


@dataclass
class PackConfig:
    """action: pack; or verify, repair or describe what was packed. To repair is to read every byte of it, and
    to pack again, from the same source by the same command, the shards that are not what was packed. source:
    what to pack. out: where shards go, or are.

    Of digits nothing more is chosen. Of photographs: count, how many crops to train on (10,000; a tenth as many
    are held out); resolution of the crops in pixels (32); seed of their places (0). Of all others, path: of the
    folder of images; of mnist's four files; of cifar10's binary version; of lsun's LMDB; of tar shards, or a
    pattern of them; of a set of huggingface's datasets, or its name.

    Of folder, lsun, tar and huggingface: max_images, the first so many; shuffle, a seed by which these are
    packed in another order than they lie in (none: as they lie); resolution to centre-crop and resize them to
    (none: files pass through untouched), channels (3), format (png, jpg or webp) and quality of what becomes
    of them; check, of what passes through: decode (of folder), header (of the others) or none; on_error:
    raise, or skip what cannot be packed and list it. Of tar: drop, extensions to leave out.

    samples_per_shard: chosen by the images' bytes, their number and their readers, if it is not given. ranks,
    loaders: that will read the shards, and each rank's. workers: processes that pack, verify or describe; 0
    for one on each core.

    Of describe: sheet, the file of the contact sheet; tiles on it; decoded, how many images the statistics are of.
    """

    action: Task = Task.pack  # type: ignore[assignment]
    source: Source | None = None  # type: ignore[valid-type]
    out: str = "???"
    path: str | None = None
    resolution: int | None = None
    channels: int | None = None
    format: Format | None = None
    quality: int | None = None
    check: Check | None = None
    max_images: int | None = None
    drop: Any = None
    count: int | None = None
    seed: int | None = None
    shuffle: int | None = None
    samples_per_shard: int | None = None
    ranks: int = 1
    loaders: int = 1
    workers: int = 0
    on_error: OnError = OnError["raise"]
    sheet: str | None = None
    tiles: int = 64
    decoded: int = 1_000

    def __post_init__(self) -> None:
        if self.shuffle is not None and self.shuffle < 0:
            raise ValueError(f"shuffle must be a seed of at least 0, got {self.shuffle}")
        for name, least in (("ranks", 1), ("loaders", 1), ("workers", 0), ("tiles", 1), ("decoded", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.drop is not None and not (
            isinstance(self.drop, list) and all(isinstance(extension, str) for extension in self.drop)
        ):
            raise ValueError(f"drop must be a list of extensions such as [txt,pyd], got {self.drop}")
