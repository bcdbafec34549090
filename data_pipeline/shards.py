"""ShardSet: many shards as one sequence of samples."""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from braceexpand import braceexpand

from data_pipeline.index import ShardIndex, file_sha256, index_path, scan_tar
from data_pipeline.manifest import MANIFEST, Manifest, ShardEntry

log = logging.getLogger(__name__)

UNFINISHED = "packing.json"
HOW_TO_MAKE_SHARDS = "make shards with `python -m launch.pack source=… out=…`"


class ShardSet:
    """The samples of all shards, numbered 0 … size-1 in the order of the shards. Thread-safe."""

    def __init__(
        self, spec: str, shards: Sequence[Path], samples: Sequence[int], manifest: Manifest | None
    ) -> None:
        self.spec = spec
        self.shards = tuple(shards)
        self.manifest = manifest
        self._starts = np.concatenate(([0], np.cumsum(samples, dtype=np.int64)))
        self._firsts: list[int] = self._starts.tolist()  # which bisect searches several times as fast
        self._indexes: dict[int, ShardIndex] = {}
        if self.size == 0:
            raise ValueError(f"data.shards={spec} holds no samples: {HOW_TO_MAKE_SHARDS}")

    @classmethod
    def open(cls, spec: str) -> ShardSet:
        """Open a folder of shards, or the tars that a brace or glob pattern names.

        With a manifest only the manifest is read. Without one (shards from webdataset's own writer) every
        shard's index is read, or built by scanning the shard once and kept beside it if the folder can be
        written.

        Raises:
            ValueError: nothing there, a packing that was never finished, a shard that is missing, truncated
                or disagrees with its index.
        """
        folder = Path(spec)
        if folder.is_dir():
            if (folder / MANIFEST).is_file():
                return cls._of_manifest(spec, folder)
            if (folder / UNFINISHED).is_file():
                raise ValueError(f"data.shards={spec} was not packed to its end: run the same packing again")
            paths = sorted(folder.glob("*.tar"))
            if not paths:
                raise ValueError(f"data.shards={spec} is a folder without *.tar shards: {HOW_TO_MAKE_SHARDS}")
        else:
            paths = _expand(spec)
        return cls._of_indexes(spec, paths)

    @classmethod
    def _of_manifest(cls, spec: str, folder: Path) -> ShardSet:
        manifest = Manifest.read(folder / MANIFEST)
        for entry in manifest.shards:
            shard = folder / entry.name
            if not shard.is_file():
                raise ValueError(f"shard {shard} is missing, and {folder / MANIFEST} lists it: copy it again")
            found = shard.stat().st_size
            if found != entry.tar_bytes:
                raise ValueError(
                    f"shard {shard} is truncated or another file: it has {found} bytes, "
                    f"{MANIFEST} says {entry.tar_bytes}: copy or pack it again"
                )
        paths = [folder / entry.name for entry in manifest.shards]
        return cls(spec, paths, [entry.samples for entry in manifest.shards], manifest)

    @classmethod
    def _of_indexes(cls, spec: str, paths: Sequence[Path]) -> ShardSet:
        indexes = [_read_or_scan(path) for path in paths]
        shards = cls(spec, paths, [len(index) for index in indexes], manifest=None)
        shards._indexes = dict(enumerate(indexes))
        return shards

    @property
    def size(self) -> int:
        """The number of samples in all shards."""
        return int(self._starts[-1])

    @property
    def sizes(self) -> list[int]:
        """How many samples each shard holds."""
        return list(map(int, np.diff(self._starts)))

    @property
    def fingerprint(self) -> str:
        """What the shards hold, wherever they lie: a digest of their checksums in order."""
        known = self.manifest.shards if self.manifest else [self.index(n) for n in range(len(self.shards))]
        return hashlib.sha256("\n".join(shard.sha256 for shard in known).encode()).hexdigest()

    def locate(self, dataset_index: int) -> tuple[int, int]:
        """The number of the shard and the row in its index that hold a sample."""
        assert 0 <= dataset_index < self._firsts[-1], dataset_index
        shard = bisect_right(self._firsts, dataset_index) - 1
        return shard, dataset_index - self._firsts[shard]

    def index(self, shard: int) -> ShardIndex:
        """The index of one shard, read when it is first asked for.

        Raises:
            ValueError: the index is unreadable or disagrees with its shard or with the manifest.
        """
        index = self._indexes.get(shard)
        if index is None:
            index = _read_or_scan(self.shards[shard])
            assert self.manifest is not None
            _check_against_manifest(index, self.manifest.shards[shard])
            self._indexes[shard] = index
        return index


def verify(folder: Path) -> list[str]:
    """Read every byte of a folder of shards; one line per problem that is found, naming the shard.

    Each shard is scanned anew and compared with its index and with the manifest, checksums included.

    Raises:
        ValueError: the folder holds no manifest and no shards.
    """
    listed: dict[str, ShardEntry] = {}
    if (folder / MANIFEST).is_file():
        listed = {entry.name: entry for entry in Manifest.read(folder / MANIFEST).shards}
    present = {path.name for path in folder.glob("*.tar")}
    if not listed and not present:
        raise ValueError(f"{folder} holds neither {MANIFEST} nor *.tar shards: {HOW_TO_MAKE_SHARDS}")
    problems = []
    for name in sorted(listed.keys() | present):
        if name not in present:
            problems.append(f"shard {folder / name} is missing")
        elif listed and name not in listed:
            problems.append(f"shard {folder / name} is not in {MANIFEST}")
        else:
            problems += _problems(folder / name, listed.get(name))
    return problems


def _problems(shard: Path, entry: ShardEntry | None) -> list[str]:
    try:
        if entry is not None and (found := file_sha256(shard)) != entry.sha256:
            return [f"shard {shard} has sha256 {found}, {MANIFEST} says {entry.sha256}"]
        if not index_path(shard).is_file():
            return [f"shard {shard} has no index"]
        if not ShardIndex.read(shard).same_as(scan_tar(shard)):
            return [f"shard {shard} disagrees with its index {index_path(shard).name}"]
    except ValueError as error:
        return [str(error)]
    return []


def _expand(spec: str) -> list[Path]:
    try:
        patterns = list(braceexpand(spec))
    except ValueError as error:
        raise ValueError(f"data.shards={spec} must be like shard-{{000..099}}.tar: {error}") from error
    paths: list[Path] = []
    for pattern in patterns:
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern))
        if not found:
            raise ValueError(f"data.shards={spec}: no folder or shard {pattern}: {HOW_TO_MAKE_SHARDS}")
        paths += map(Path, found)
    return paths


def _read_or_scan(shard: Path) -> ShardIndex:
    if index_path(shard).is_file():
        return ShardIndex.read(shard)
    log.info("indexing %s, which has no index", shard)
    index = scan_tar(shard)
    try:
        index.write()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        log.info("the index of %s stays in memory: %s", shard, error)
    return index


def _check_against_manifest(index: ShardIndex, entry: ShardEntry) -> None:
    if (len(index), index.tar_bytes, index.sha256) != (entry.samples, entry.tar_bytes, entry.sha256):
        raise ValueError(
            f"index {index_path(index.shard)} disagrees with its shard as {MANIFEST} describes it: "
            "delete the index and it is built from the shard again, or copy the shard again"
        )
