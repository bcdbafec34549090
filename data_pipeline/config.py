"""DataConfig: everything about the data that a user chooses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from data_pipeline.decoders import Decoder
from data_pipeline.remote.access import DEFAULT_ACCESS, Access
from data_pipeline.transforms import Crop

if TYPE_CHECKING:
    from data_pipeline.stream import DataStream
    from data_pipeline.synthetic import SyntheticStream

    Stream: TypeAlias = DataStream | SyntheticStream

# What to do about an undecodable image. `skip` counts and logs it, and puts the sample that follows in the
# same epoch's order in its place. Functional form, because Hydra spells a choice by its name and `raise` is a
# keyword.
OnError = Enum("OnError", {"raise": "raise", "skip": "skip"})


@dataclass
class DataSource(ABC):
    """Where samples come from: shards of images, or a law that they are drawn from.

    pixels: whether samples are images as bytes; otherwise they are numbers that only models read.
    """

    pixels: ClassVar[bool] = True

    @property
    def gives_classes(self) -> bool:
        """Whether samples come with their class."""
        return False

    @abstractmethod
    def build(self, seed: int, classes: int = 0) -> Stream:
        """The endless stream of samples. classes: how many the network knows, where samples come with theirs."""


@dataclass
class DataConfig(DataSource):
    """Which shards to read and how; a plain dataclass, so that Hydra can hold it as a structured config.

    Attributes:
        shards: a folder of tar shards, or a brace or glob pattern of tars; at a path, or at an address that begins
            with https://, http:// or s3:// (there the folder of a manifest.json, or a brace pattern of tars).
        resolution: height and width of the images that come out, in pixels.
        channels: 1 (gray) or 3 (colour).
        batch: images per global batch, over all ranks.
        window: how many shards, next to each other in an epoch's order of them, are shuffled together; 0 for all,
            so that an epoch is one full permutation of the samples.
        lanes: into how many stretches of shards an epoch is cut. All are read at one pace, and each by a few
            neighbouring ranks, so that a node need not read every shard. Best a multiple of the nodes that divides
            the batch.
        crop: how larger images are cut to the resolution.
        crop_scale: of crop=scaled, the least and the greatest side as shares of the shorter side.
        flip: mirror each image left to right with probability 1/2.
        labels: read the class of each sample (its ``cls`` member, or what its ``json`` says) as the condition.
        captions: read the caption of each sample (what its ``json`` says) with it.
        decoder: ``fast`` is the fastest library for each format, ``pillow`` is Pillow; the pixels are the same.
        workers: decoding threads per rank; 0 decodes in the caller's thread.
        prefetch: how many batches are loaded ahead.
        on_error: ``raise`` or ``skip`` an undecodable image, or one whose shard cannot be read; what is skipped is
            counted and logged.
        cache: of remote shards: the folder where the processes of a node keep them, or the empty string for one
            of the user's own among the temporary files.
        cache_bytes: how much that folder holds at most; what was used least recently goes first.
        timeout: seconds without a byte after which a connection to a server is given up.
        retries: how often in a row a server is asked again without a byte gained, with growing pauses.
    """

    shards: str = "???"
    resolution: int = 32
    channels: int = 3
    batch: int = 128
    window: int = 0
    lanes: int = 1
    crop: Crop = Crop.none
    crop_scale: list[float] = field(default_factory=lambda: [0.5, 1.0])
    flip: bool = False
    labels: bool = False
    captions: bool = False
    decoder: Decoder = Decoder.fast
    workers: int = 2
    prefetch: int = 4
    on_error: OnError = OnError["raise"]
    cache: str = DEFAULT_ACCESS.cache
    cache_bytes: int = DEFAULT_ACCESS.cache_bytes
    timeout: float = DEFAULT_ACCESS.timeout
    retries: int = DEFAULT_ACCESS.retries

    def __post_init__(self) -> None:
        for name, least in (
            ("resolution", 1),
            ("batch", 1),
            ("window", 0),
            ("lanes", 1),
            ("workers", 0),
            ("prefetch", 1),
            ("cache_bytes", 1),
            ("retries", 0),
        ):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"data.{name} must be at least {least}, got {value}")
        if self.channels not in (1, 3):
            raise ValueError(f"data.channels must be 1 (gray) or 3 (colour), got {self.channels}")
        if not self.timeout > 0:
            raise ValueError(f"data.timeout must be positive, in seconds, got {self.timeout}")
        self.crop_scale = list(self.crop_scale)
        if not (len(self.crop_scale) == 2 and 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1):
            raise ValueError(f"data.crop_scale must be two shares in (0, 1], in order, got {self.crop_scale}")
        if not self.shards:
            raise ValueError("data.shards must name a folder or a pattern of tar shards, got an empty string")

    @property
    def gives_classes(self) -> bool:
        return self.labels

    @property
    def access(self) -> Access:
        """How remote shards are fetched and kept."""
        return Access(self.cache, self.cache_bytes, self.timeout, self.retries)

    def build(self, seed: int, classes: int = 0) -> DataStream:
        from data_pipeline.stream import DataStream

        return DataStream(self, seed, classes)
