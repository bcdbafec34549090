"""Packer: a stretch of a source's samples to one shard, whole or not at all."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.atomic import atomically
from data_pipeline.crew import Tell
from data_pipeline.decode import IMAGE_EXTENSIONS
from data_pipeline.documents import Document, write_document
from data_pipeline.index import ABSENT, ShardIndex, file_sha256, index_path
from data_pipeline.manifest import ShardEntry, Skipped, skipped_pairs
from data_pipeline.sources import Source, UnusableImage
from data_pipeline.tarball import Tarball

log = logging.getLogger(__name__)

KIND = "quasistatic skipped images"
VERSION = 2
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Stretch:
    """The samples start … stop-1 of a source, and the shard that they go to."""

    shard: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"shard {self.shard}"


@dataclass(frozen=True)
class Packed:
    """A finished shard: its entry in the manifest, how many images are in which format, and what was skipped.

    Where every image was skipped there is no shard, and no entry.
    """

    entry: ShardEntry | None
    formats: Mapping[str, int]
    skipped: Sequence[Skipped]
    written: bool


@dataclass(frozen=True)
class Packer:
    """Packs a stretch of its source; what an earlier run finished is kept.

    skip: pass over images that cannot be packed, and say which; otherwise the first is an error.
    """

    source: Source
    skip: bool = False

    def __call__(self, stretch: Stretch, tell: Tell) -> Packed:
        """The stretch as a shard with its index beside it. Raises what the source refuses."""
        skipped = _read_skipped(stretch.shard)
        if self.skip and len(skipped) == len(stretch):
            tell(len(stretch))
            return Packed(None, {}, skipped, written=False)
        index = None if skipped and not self.skip else _whole(stretch, len(skipped))
        if index is not None:
            tell(len(stretch))
            return _packed(index, skipped, written=False)
        index_path(stretch.shard).unlink(missing_ok=True)  # never an old index beside a new shard
        skipped_path(stretch.shard).unlink(missing_ok=True)
        try:
            return self._packed(stretch, tell)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise OSError(
                f"no room for {stretch}: make some in {stretch.shard.parent}, and the same command goes on"
            ) from error

    def _packed(self, stretch: Stretch, tell: Tell) -> Packed:
        tarball, skipped = self._write(stretch, tell)
        if not tarball:
            stretch.shard.unlink()
        if skipped:
            write_document(skipped_path(stretch.shard), KIND, VERSION, {"skipped": skipped})
        if not tarball:
            return Packed(None, {}, skipped, written=False)
        index = tarball.index(stretch.shard)
        index.write()  # last: with it, the shard is finished
        return _packed(index, skipped, written=True)

    def _write(self, stretch: Stretch, tell: Tell) -> tuple[Tarball, list[Skipped]]:
        skipped: list[Skipped] = []
        with atomically(stretch.shard) as file:
            tarball = Tarball(file)
            for row in range(stretch.start, stretch.stop):
                try:
                    sample = self.source.sample(row)
                except UnusableImage as error:
                    if not self.skip:
                        raise ValueError(
                            f"{self.source.description}, {error}: mend it or take it out, or leave out such "
                            "images with on_error=skip, which lists them"
                        ) from error
                    skipped.append((error.name, error.reason))
                else:
                    tarball.add(sample)
                tell(1)
            tarball.close()
        return tarball, skipped


def skipped_path(shard: Path) -> Path:
    """Where the names of what was skipped lie until the manifest has them."""
    return shard.with_suffix(".skipped")


def _whole(stretch: Stretch, skipped: int) -> ShardIndex | None:
    """The index of a shard that an earlier run finished, or None if it has to be written."""
    shard = stretch.shard
    if not (shard.exists() and index_path(shard).exists()):
        return None
    try:
        index = ShardIndex.read(shard)
    except ValueError as error:
        log.warning("packing %s again: %s", shard, error)
        return None
    if len(index) + skipped != len(stretch) or file_sha256(shard) != index.sha256:
        log.warning("packing %s again: its checksum is not that of its index", shard)
        return None
    return index


def _read_skipped(shard: Path) -> list[Skipped]:
    path = skipped_path(shard)
    return list(skipped_pairs(Document.read(path, KIND, VERSION))) if path.exists() else []


def _packed(index: ShardIndex, skipped: Sequence[Skipped], written: bool) -> Packed:
    entry = ShardEntry(index.shard.name, len(index), index.tar_bytes, index.sha256)
    counts = {
        extension: int((index.spans[extension][:, 0] != ABSENT).sum())
        for extension in IMAGE_EXTENSIONS
        if extension in index.spans
    }
    return Packed(entry, counts, skipped, written)
