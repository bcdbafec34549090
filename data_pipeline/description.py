"""Description: what a set of shards holds, in numbers and as one picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image

from data_pipeline.atomic import atomically
from data_pipeline.crew import Progress, Summed, Tell, carried_out, silent
from data_pipeline.decode import (
    DEFAULT_LIMITS,
    IMAGE_EXTENSIONS,
    UndecodableImage,
    decode_label,
    encode_png,
    label_in_json,
    open_image,
)
from data_pipeline.documents import Json
from data_pipeline.index import ABSENT, ShardIndex, index_path, scan_tar
from data_pipeline.read import ShardReader
from data_pipeline.shards import ShardSet

THUMBNAIL = 128  # pixels a side of the contact sheet's images, at most
RIM = 2  # pixels between them


@dataclass(frozen=True)
class Contents:
    """What every sample of a shard, or of all of them, tells without being decoded.

    tar_bytes: the shards' lengths. formats: images by extension. image_bytes: of all images together, and of the
    shortest and the longest.
    """

    samples: int
    tar_bytes: int
    formats: Counter[str]
    classes: Counter[int]
    image_bytes: tuple[int, int, int]


def contents(shards: ShardSet, *, workers: int = 1, progress: Progress = silent) -> Contents:
    """Of every shard, and every class in them.

    Raises:
        ValueError: a shard or a class that cannot be read; names shard and key.
    """
    paths = [shard for shard in shards.shards if isinstance(shard, Path)]
    if len(paths) < len(shards.shards):
        raise ValueError(
            f"{shards.spec} is an address, and shards are described where they lie: give their folder"
        )
    tell = Summed(progress, len(paths))
    found = [each for _, each in carried_out(_of_one, paths, workers=workers, tell=tell)]
    lengths = [each.image_bytes for each in found if each.image_bytes[2]]
    return Contents(
        sum(each.samples for each in found),
        sum(each.tar_bytes for each in found),
        sum((each.formats for each in found), Counter()),
        sum((each.classes for each in found), Counter()),
        (
            sum(total for total, _, _ in lengths),
            min((least for _, least, _ in lengths), default=0),
            max((most for _, _, most in lengths), default=0),
        ),
    )


def _of_one(shard: Path, tell: Tell) -> Contents:
    index = ShardIndex.read(shard) if index_path(shard).is_file() else scan_tar(shard)
    formats: Counter[str] = Counter()
    lengths: list[Int64[np.ndarray, " n"]] = [np.zeros(0, np.int64)]
    for extension in IMAGE_EXTENSIONS:
        if extension in index.spans:
            spans = index.spans[extension]
            lengths.append(spans[spans[:, 0] != ABSENT, 1])
            formats[extension] = len(lengths[-1])
    sizes = np.concatenate(lengths)
    reader = ShardReader(max_open=1)
    labels = [_label(reader, index, row) for row in range(len(index))]
    classes = Counter(label for label in labels if label is not None)
    reader.close()
    tell(1)
    total, least, most = (int(sizes.sum()), int(sizes.min()), int(sizes.max())) if len(sizes) else (0, 0, 0)
    return Contents(len(index), index.tar_bytes, formats, classes, (total, least, most))


def _label(reader: ShardReader, index: ShardIndex, row: int) -> int | None:
    """The class of a sample, by its ``cls`` or, where it has none, by its ``json`` if that tells it."""
    member = index.member(row, "cls")
    if member is not None:
        try:
            return decode_label(reader.read(member))
        except ValueError as error:
            raise ValueError(f"{member}: {error}") from error
    member = index.member(row, "json")
    if member is not None:
        with suppress(ValueError):
            DEFAULT_LIMITS.check_document(member.size)
            return label_in_json(reader.read(member))
    return None


@dataclass(frozen=True)
class Sampled:
    """What some samples tell once they are decoded: evenly spaced ones in stored order, the same every time.

    sizes: how many images have width x height pixels. mean, std: of each channel's values in [0, 1], over the
    pixels of all these images. undecodable: how many were passed over.
    """

    count: int
    undecodable: int
    sizes: Counter[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def sampled(shards: ShardSet, count: int, channels: int) -> Sampled:
    """Statistics of ``count`` samples, or of all where there are fewer."""
    sizes: Counter[str] = Counter()
    sums, squares, pixels, bad = np.zeros(channels), np.zeros(channels), 0, 0
    numbers = evenly_spaced(shards.size, count)
    reader = ShardReader()
    for number in numbers:
        try:
            image = _image(shards, reader, number, channels)
        except UndecodableImage:
            bad += 1
            continue
        sizes[f"{image.width}x{image.height}"] += 1
        values = np.asarray(image, np.float64).reshape(-1, channels) / 255
        sums += values.sum(0)
        squares += (values**2).sum(0)
        pixels += len(values)
    reader.close()
    mean = sums / max(1, pixels)
    std = np.sqrt(np.maximum(0, squares / max(1, pixels) - mean**2))
    return Sampled(len(numbers) - bad, bad, sizes, tuple(mean.tolist()), tuple(std.tolist()))


def write_contact_sheet(shards: ShardSet, path: Path, count: int, channels: int) -> int:
    """A PNG of ``count`` evenly spaced samples, in rows in stored order; how many there are on it."""
    reader = ShardReader()
    images = []
    for number in evenly_spaced(shards.size, count):
        try:
            image = _image(shards, reader, number, channels)
        except UndecodableImage:
            image = Image.new("L" if channels == 1 else "RGB", (1, 1))  # a gap
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        images.append(image)
    reader.close()
    columns = math.ceil(math.sqrt(len(images)))
    side = max(max(image.size) for image in images) + RIM
    sheet = Image.new(
        "L" if channels == 1 else "RGB", (columns * side - RIM, -(-len(images) // columns) * side - RIM)
    )
    for place, image in enumerate(images):
        sheet.paste(image, (place % columns * side, place // columns * side))
    with atomically(path) as file:
        file.write(encode_png(sheet))
    return len(images)


def evenly_spaced(size: int, count: int) -> list[int]:
    """``count`` numbers out of range(size), or all of it."""
    return [number * size // count for number in range(count)] if count < size else list(range(size))


def described(contents: Contents, sampled: Sampled, shards: ShardSet) -> dict[str, Json]:
    """All of it as one JSON object."""
    manifest = shards.manifest
    total, least, most = contents.image_bytes
    names = manifest.class_names if manifest else ()
    return {
        "shards": len(shards.shards),
        "samples": contents.samples,
        "bytes": contents.tar_bytes,
        "image_bytes": {"mean": round(total / max(1, contents.formats.total()), 1), "least": least, "most": most},
        "formats": dict(sorted(contents.formats.items())),
        "classes": {_class_name(names, label): count for label, count in sorted(contents.classes.items())},
        "skipped": len(manifest.skipped) if manifest else 0,
        "preparation": manifest.preparation if manifest else None,
        "decoded": sampled.count,
        "undecodable": sampled.undecodable,
        "sizes": dict(sampled.sizes.most_common()),
        "mean": [round(value, 5) for value in sampled.mean],
        "std": [round(value, 5) for value in sampled.std],
        "fingerprint": shards.fingerprint,
    }


def _class_name(names: Sequence[str], label: int) -> str:
    """Its name, with its number where others are named the same."""
    if label >= len(names):
        return str(label)
    return names[label] if names.count(names[label]) == 1 else f"{names[label]} ({label})"


def _image(shards: ShardSet, reader: ShardReader, number: int, channels: int) -> Image.Image:
    shard, row = shards.locate(number)
    index = shards.index(shard)
    members = [index.member(row, extension) for extension in IMAGE_EXTENSIONS]
    found = [member for member in members if member is not None]
    if len(found) != 1:
        raise UndecodableImage(f"shard {index.shard}, key {index.keys[row]!r}: expected one image")
    return open_image(reader.read(found[0]), channels=channels)
