"""Dataset: the decoded, fitted samples of a shard set, by their number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from data_pipeline.config import DataConfig
from data_pipeline.decode import (
    DEFAULT_LIMITS,
    IMAGE_EXTENSIONS,
    Limits,
    UndecodableImage,
    caption_in_json,
    decode_json,
    decode_label,
    label_in_json,
)
from data_pipeline.decoders import Decode, Pixels, examine
from data_pipeline.documents import Json
from data_pipeline.index import Member, ShardIndex
from data_pipeline.read import ShardReader
from data_pipeline.shards import ShardSet
from data_pipeline.storage import Place, Unreachable
from data_pipeline.transforms import Channels, Square, fit

T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """An image that has been read, where it lies, and what decodes it."""

    member: Member
    decode: Decode


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
        self._scale = (config.crop_scale[0], config.crop_scale[1])
        self._reader = ShardReader(shards.storage.most_open, shards.open_shard)

    def image(self, dataset_index: int, crop_word: int = 0, scale_word: int = 0) -> Square:
        """The image of one sample; the words (64 bits each) place and size a random crop.

        Raises:
            UndecodableImage, ValueError: as ``read`` and ``decode``.
        """
        config = self.config
        room = np.empty((config.resolution, config.resolution, config.channels), np.uint8).transpose(2, 0, 1)
        self.decode(self.read(dataset_index), room, crop_word, scale_word)
        return room

    def read(self, dataset_index: int) -> Encoded:
        """The image of one sample as it lies in its shard, its size checked.

        Raises:
            UndecodableImage: no image, or over the limits; names shard, key and byte span. Or no shard can be had.
        """
        return self._mended(
            self._place(dataset_index), lambda: self._encoded(_image_member(*self._locate(dataset_index)))
        )

    def decode(self, image: Encoded, room: Square, crop_word: int, scale_word: int) -> None:
        """Put an image into ``room``, whose channels lie innermost in memory.

        Raises:
            UndecodableImage: it is damaged, or its shard is; names shard, key and byte span.
            ValueError: it does not fit the resolution; names the same.
        """
        inner, member = room.transpose(1, 2, 0), image.member
        pixels = self._mended(
            member.shard,
            lambda: _pixels(image, inner),
            lambda: _pixels(self._encoded(member), inner),
        )
        if pixels is not inner:
            self._fit(member, pixels.transpose(2, 0, 1), room, crop_word, scale_word)

    def _mended(self, shard: Place, read: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """What ``read`` gives, or what it gives once a damaged copy of a remote shard has been fetched again."""
        try:
            try:
                return read()
            except ValueError:
                if not self.shards.repair(shard):
                    raise
            self._reader.forget(shard)
            return (again or read)()
        except Unreachable as error:
            raise UndecodableImage(str(error)) from error

    def _encoded(self, member: Member) -> Encoded:
        config = self.config
        try:
            self.limits.check_bytes(member.size)
            data = self._bytes(member)
            return Encoded(member, examine(data, config.channels, self.limits, config.decoder))
        except DamagedShard:
            raise
        except UndecodableImage as error:
            raise UndecodableImage(f"{member}: {error}") from error

    def _bytes(self, member: Member) -> bytes:
        try:
            return self._reader.read(member)
        except ValueError as error:
            raise DamagedShard(str(error)) from error

    def _fit(self, member: Member, pixels: Channels, room: Square, crop_word: int, scale_word: int) -> None:
        config = self.config
        try:
            room[...] = fit(pixels, config.resolution, config.crop, crop_word, self._scale, scale_word)
        except ValueError as error:
            raise ValueError(f"{member}: {error}") from error

    def label(self, dataset_index: int) -> int:
        """The class of one sample: its ``cls`` member, or else what its ``json`` member has under cls or label.

        Raises:
            UndecodableImage: the shard is damaged or cannot be had.
            ValueError: no class, not a non-negative integer, or no class that is known; names shard and key.
        """
        return self._mended(self._place(dataset_index), lambda: self._label(dataset_index))

    def _label(self, dataset_index: int) -> int:
        index, row = self._locate(dataset_index)
        member, read = index.member(row, "cls"), decode_label
        if member is None:
            member, read = index.member(row, "json"), label_in_json
        if member is None:
            raise ValueError(
                f"shard {index.shard}, key {index.keys[row]!r} has no class (a .cls member, or cls or label in "
                "its .json member), and data.labels=true and launch.evaluate need one: pack a source in which "
                "every image has a class"
            )
        label = self._read(member, read)
        if self.classes and label >= self.classes:
            raise ValueError(f"{member}: the class must be below network.classes={self.classes}, got {label}")
        return label

    def caption(self, dataset_index: int) -> str:
        """The caption of one sample: what its ``json`` member has under caption.

        Raises:
            ValueError: no such member, not JSON, or no text there; names shard and key.
        """
        return self._document(dataset_index, caption_in_json)

    def document(self, dataset_index: int) -> dict[str, Json]:
        """All that the ``json`` member of one sample says.

        Raises:
            ValueError: no such member, or not one JSON object; names shard and key.
        """
        return self._document(dataset_index, decode_json)

    def _document(self, dataset_index: int, decode: Callable[[bytes], T]) -> T:
        return self._mended(self._place(dataset_index), lambda: self._read(self._json(dataset_index), decode))

    def _place(self, dataset_index: int) -> Place:
        return self.shards.shards[self.shards.locate(dataset_index)[0]]

    def _locate(self, dataset_index: int) -> tuple[ShardIndex, int]:
        shard, row = self.shards.locate(dataset_index)
        try:
            return self.shards.index(shard), row
        except ValueError as error:
            raise DamagedShard(str(error)) from error

    def _json(self, dataset_index: int) -> Member:
        index, row = self._locate(dataset_index)
        member = index.member(row, "json")
        if member is None:
            raise ValueError(
                f"shard {index.shard}, key {index.keys[row]!r} has no .json member, which captions are in: pack a "
                "source in which every image has one, or set data.captions=false"
            )
        return member

    def _read(self, member: Member, decode: Callable[[bytes], T]) -> T:
        try:
            self.limits.check_document(member.size)
            return decode(self._bytes(member))
        except DamagedShard:
            raise
        except ValueError as error:
            raise ValueError(f"{member}: {error}") from error

    def close(self) -> None:
        """Close the files; they are opened again when they are needed."""
        self._reader.close()


class DamagedShard(UndecodableImage):
    """A shard, or its index, that is not what it was when it was opened."""


def _pixels(image: Encoded, room: Pixels) -> Pixels:
    try:
        return image.decode(room)
    except UndecodableImage as error:
        raise UndecodableImage(f"{image.member}: {error}") from error


def _image_member(index: ShardIndex, row: int) -> Member:
    images = [
        member
        for extension in index.spans
        if extension in IMAGE_EXTENSIONS and (member := index.member(row, extension)) is not None
    ]
    if len(images) != 1:
        raise UndecodableImage(
            f"shard {index.shard}, key {index.keys[row]!r}: expected one image "
            f"({', '.join(IMAGE_EXTENSIONS)}), got members {', '.join(index.extensions(row))}"
        )
    return images[0]
