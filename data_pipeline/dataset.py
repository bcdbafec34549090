"""Dataset: the decoded, fitted samples of a shard set, by their number."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from data_pipeline.config import DataConfig
from data_pipeline.decode import (
    DEFAULT_LIMITS,
    IMAGE_EXTENSIONS,
    Limits,
    UndecodableImage,
    decode_image,
    decode_label,
)
from data_pipeline.index import Member, ShardIndex
from data_pipeline.read import ShardReader
from data_pipeline.shards import ShardSet
from data_pipeline.storage import Unreachable
from data_pipeline.transforms import fit


class Dataset:
    """Samples of a ``ShardSet`` as arrays. Thread-safe: it holds open files and no other state.

    classes: labels must lie below it; 0 takes any.

    Raises:
        ValueError: the shards' manifest names more classes than that.
    """

    def __init__(
        self, shards: ShardSet, config: DataConfig, limits: Limits = DEFAULT_LIMITS, classes: int = 0
    ) -> None:
        self.shards = shards
        self.config = config
        self.limits = limits
        self.classes = classes
        named = shards.manifest.class_names if shards.manifest else ()
        if 0 < classes < len(named):
            raise ValueError(
                f"data.shards={shards.spec} has {len(named)} classes, more than network.classes={classes}: "
                f"set network.classes={len(named)}"
            )
        self._reader = ShardReader(open_shard=shards.open_shard)

    def image(self, dataset_index: int, crop_word: int) -> UInt8[np.ndarray, "c resolution resolution"]:
        """The image of one sample; ``crop_word`` (64 bits) places a random crop.

        Raises:
            UndecodableImage: no image, or a damaged one; names shard, key and byte span.
            ValueError: the image does not fit the resolution; names the same.
        """
        shard, row = self.shards.locate(dataset_index)
        try:
            return self._image(shard, row, crop_word)
        except Unreachable as error:
            raise UndecodableImage(str(error)) from error
        except ValueError:
            if not self.shards.repair(shard):
                raise
        self._reader.forget(self.shards.shards[shard])
        return self._image(shard, row, crop_word)

    def _image(self, shard: int, row: int, crop_word: int) -> UInt8[np.ndarray, "c resolution resolution"]:
        member = _image_member(self.shards.index(shard), row)
        try:
            self.limits.check_bytes(member.size)
            image = decode_image(self._reader.read(member), channels=self.config.channels, limits=self.limits)
        except UndecodableImage as error:
            raise UndecodableImage(f"{member}: {error}") from error
        try:
            return fit(image, self.config.resolution, self.config.crop, crop_word)
        except ValueError as error:
            raise ValueError(f"{member}: {error}") from error

    def label(self, dataset_index: int) -> int:
        """The class of one sample.

        Raises:
            ValueError: no ``cls`` member, not a non-negative integer, or no class that is known; names shard and
                key.
        """
        shard, row = self.shards.locate(dataset_index)
        index = self.shards.index(shard)
        member = index.member(row, "cls")
        if member is None:
            raise ValueError(
                f"shard {index.shard}, key {index.keys[row]!r} has no class (a .cls member), and data.labels=true "
                "and launch.evaluate need one: pack a source in which every image has a class"
            )
        try:
            label = decode_label(self._reader.read(member))
        except ValueError as error:
            raise ValueError(f"{member}: {error}") from error
        if self.classes and label >= self.classes:
            raise ValueError(f"{member}: the class must be below network.classes={self.classes}, got {label}")
        return label

    def close(self) -> None:
        """Close the files; they are opened again when they are needed."""
        self._reader.close()


def _image_member(index: ShardIndex, row: int) -> Member:
    members = [index.member(row, extension) for extension in IMAGE_EXTENSIONS]
    images = [member for member in members if member is not None]
    if len(images) != 1:
        raise UndecodableImage(
            f"shard {index.shard}, key {index.keys[row]!r}: expected one image "
            f"({', '.join(IMAGE_EXTENSIONS)}), got members {', '.join(index.extensions(row))}"
        )
    return images[0]
