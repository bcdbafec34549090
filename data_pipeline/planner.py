"""Planner: how many samples a shard is to have, from how many there are, their bytes and who will read them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from data_pipeline.decode import IMAGE_EXTENSIONS, open_image
from data_pipeline.preparation import JPEG_QUALITY, Format, encoded
from data_pipeline.sources import Source, UnusableImage

MIB = 2**20
# A shard is what is downloaded, verified and packed in one piece: long enough to be read at a disk's or a
# network's full speed, short enough that a window of several fits a node's cache.
USUAL_BYTES, LEAST_BYTES = 128 * MIB, 64 * MIB
LEAST_SAMPLES = 500  # where images are so small that these are not LEAST_BYTES
SHARDS_OF_A_LOADER = 4
MOST_SHARDS = 10_000
BLOCK, INDEX_ENTRY = 512, 80  # of a tar; of the index, about, in bytes
MUCH = 10e9  # bytes, from which on a shorter encoding is named
SAMPLED, RUN = 64, 4  # images that are prepared to see how long they become, in runs of so many


@dataclass(frozen=True)
class Plan:
    """What packing will make, about; as text, what a person reads.

    image_bytes: of one image on average, as it is packed. sampled: of how many that is the average. jpeg_bytes: of
    one as a JPEG, where the source packs prepared images as PNG.
    """

    samples: int
    samples_per_shard: int
    image_bytes: float
    sampled: int
    jpeg_bytes: float | None = None

    @property
    def shards(self) -> int:
        """How many there will be."""
        return -(-self.samples // self.samples_per_shard)

    @property
    def shard_bytes(self) -> float:
        """Of a full one, about."""
        return min(self.samples, self.samples_per_shard) * packed_bytes(self.image_bytes)

    @property
    def bytes(self) -> float:
        """Of all shards with their indexes, about."""
        return self.samples * (packed_bytes(self.image_bytes) + INDEX_ENTRY)

    def __str__(self) -> str:
        shorter = ""
        if self.jpeg_bytes and self.bytes > MUCH:
            jpegs = self.samples * (packed_bytes(self.jpeg_bytes) + INDEX_ENTRY)
            shorter = f"; with format=jpg (quality={JPEG_QUALITY}, not without loss) {size(jpegs)}"
        return (
            f"{self.samples} images of about {size(self.image_bytes)} (the average of {self.sampled}): about "
            f"{size(self.bytes)} in {self.shards} shards of {self.samples_per_shard}, "
            f"{size(self.shard_bytes)} each{shorter}"
        )


def plan(source: Source, samples_per_shard: int | None = None, ranks: int = 1, loaders: int = 1) -> Plan:
    """The plan for a source, by some of its images, which are prepared for it.

    A given ``samples_per_shard`` is kept to.

    Args:
        ranks: processes that will train on the shards, if that is known.
        loaders: of each rank, that read a shard each.
    """
    for name, value in (("ranks", ranks), ("loaders", loaders)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    images = _some_images(source)
    mean = sum(len(data) for _, data in images) / max(1, len(images))
    per_shard = samples_per_shard or chosen_samples_per_shard(len(source), mean, ranks * loaders)
    jpeg = None
    if source.resolution is not None and images and all(extension == "png" for extension, _ in images):
        jpeg = sum(_jpeg_bytes(data, source.channels) for _, data in images) / len(images)
    return Plan(len(source), per_shard, mean, len(images), jpeg)


def chosen_samples_per_shard(samples: int, image_bytes: float, readers: int) -> int:
    """Shards of the usual length, or shorter ones where each reader would else have fewer than a few of them.

    None is shorter than the least bytes, or the least samples where those are fewer bytes; and there are never
    more than the most.
    """
    each = packed_bytes(image_bytes)
    usual = math.ceil(samples * each / USUAL_BYTES)
    least_samples = min(LEAST_SAMPLES, math.ceil(LEAST_BYTES / each))
    shards = min(max(usual, readers * SHARDS_OF_A_LOADER), samples // least_samples, MOST_SHARDS)
    return math.ceil(samples / max(1, shards))


def packed_bytes(image_bytes: float) -> float:
    """Of one image in a tar, about: its header, and the padding to a whole block."""
    return image_bytes + BLOCK + BLOCK / 2


def size(count: float) -> str:
    """A number of bytes as a person would say it."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count:.0f} B"


def _some_images(source: Source) -> list[tuple[str, bytes]]:
    """Extension and bytes of images in runs spread over the source; those that cannot be packed are left out."""
    images: list[tuple[str, bytes]] = []
    for row in _rows(len(source)):
        try:
            sample = source.sample(row)
        except UnusableImage:
            continue
        for extension in IMAGE_EXTENSIONS:
            data = sample.get(extension)
            if isinstance(data, bytes):
                images.append((extension, data))
    return images


def _rows(samples: int) -> list[int]:
    if samples <= SAMPLED:
        return list(range(samples))
    starts = np.linspace(0, samples - RUN, SAMPLED // RUN).astype(int).tolist()
    return [start + offset for start in starts for offset in range(RUN)]


def _jpeg_bytes(data: bytes, channels: int) -> int:
    return len(encoded(open_image(data, channels=channels), Format.jpg, JPEG_QUALITY))
