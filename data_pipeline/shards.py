"""ShardSet: many shards as one sequence of samples."""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from braceexpand import braceexpand

from data_pipeline.index import ShardIndex, index_path, scan_tar
from data_pipeline.manifest import MANIFEST, Manifest, ShardEntry
from data_pipeline.remote.access import DEFAULT_ACCESS, Access
from data_pipeline.remote.url import scheme_of
from data_pipeline.storage import Ahead, Nothing, Place, Storage, Unreachable, check_entry, entry_of

log = logging.getLogger(__name__)

UNFINISHED = "packing.json"
MOST_INDEXES = 1024  # in memory: about 0.1 MB each for a thousand samples
HOW_TO_MAKE_SHARDS = "make shards with `python -m launch.pack source=… out=…`"


class ShardSet:
    """The samples of all shards, numbered 0 … size-1 in the order of the shards. Thread-safe.

    The indexes used last are kept in memory; the others are read again when they are needed.
    """

    def __init__(self, spec: str, storage: Storage) -> None:
        self.spec = spec
        self.shards = storage.shards
        self.manifest = storage.manifest
        self.storage = storage
        samples = [entry.samples for entry in storage.entries]
        self._starts = np.concatenate(([0], np.cumsum(samples, dtype=np.int64)))
        self._firsts: list[int] = self._starts.tolist()  # which bisect searches several times as fast
        self._numbers = {place: number for number, place in enumerate(storage.shards)}
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        self._lock = threading.Lock()
        if self.size == 0:
            raise ValueError(f"data.shards={spec} holds no samples: {HOW_TO_MAKE_SHARDS}")

    @classmethod
    def open(cls, spec: str, access: Access = DEFAULT_ACCESS) -> ShardSet:
        """Open a folder of shards, or the tars that a brace or glob pattern names; here, or at an address.

        With a manifest only the manifest is read. Without one (shards from webdataset's own writer) every
        shard's index is read, or built by scanning the shard once and kept beside it if the folder can be
        written. ``access``: how shards at http://, https:// or s3:// are fetched.

        Raises:
            ValueError: nothing there, a packing that was never finished, a shard that is missing, truncated
                or disagrees with its index.
            Unreachable: a server does not give what must be read here.
        """
        scheme = scheme_of(spec)
        if not scheme:
            return cls(spec, LocalShards.at(spec))
        if scheme == "file":
            return cls(spec, LocalShards.at(_path_of(spec)))
        from data_pipeline.remote.opening import open_remote  # loads what only remote shards need

        return cls(spec, open_remote(spec, access))

    @property
    def size(self) -> int:
        """The number of samples in all shards."""
        return int(self._starts[-1])

    @property
    def sizes(self) -> list[int]:
        """How many samples each shard holds."""
        return [entry.samples for entry in self.storage.entries]

    @property
    def fingerprint(self) -> str:
        """What the shards hold, wherever they lie: a digest of their checksums in order."""
        return hashlib.sha256("\n".join(entry.sha256 for entry in self.storage.entries).encode()).hexdigest()

    def locate(self, dataset_index: int) -> tuple[int, int]:
        """The number of the shard and the row in its index that hold a sample."""
        assert 0 <= dataset_index < self._firsts[-1], dataset_index
        shard = bisect_right(self._firsts, dataset_index) - 1
        return shard, dataset_index - self._firsts[shard]

    def index(self, shard: int) -> ShardIndex:
        """The index of one shard, read when it is first asked for.

        Raises:
            ValueError: the index is unreadable or disagrees with its shard or with the manifest.
            Unreachable: a server does not give it.
        """
        with self._lock:
            index = self._indexes.get(shard)
            if index is not None:
                self._indexes.move_to_end(shard)
                return index
        index = self.storage.read_index(shard)
        check_entry(index, self.storage.entries[shard])
        with self._lock:
            self._indexes[shard] = index
            if len(self._indexes) > MOST_INDEXES:
                self._indexes.popitem(last=False)
        return index

    def open_shard(self, place: Place) -> int:
        """A descriptor of a shard's bytes, for reading; the caller closes it.

        Raises:
            Unreachable: the shard is gone, or a server does not give it.
        """
        return self.storage.open(self._numbers[place])

    def repair(self, place: Place) -> bool:
        """Whether a shard that could not be read is worth another try, as a copy of it has been thrown away."""
        number = self._numbers[place]
        if not self.storage.repair(number):
            return False
        with self._lock:
            self._indexes.pop(number, None)
        return True


class LocalShards(Storage):
    """Shards in the file system."""

    def __init__(self, shards: Sequence[Path], entries: Sequence[ShardEntry], manifest: Manifest | None) -> None:
        self.shards, self.entries, self.manifest = tuple(shards), tuple(entries), manifest
        self._unwritten: dict[Path, ShardIndex] = {}

    @classmethod
    def at(cls, spec: str) -> LocalShards:
        """Open a folder of shards, or the tars that a pattern names."""
        folder = Path(spec)
        if not folder.is_dir():
            return cls._of_indexes(expand(spec, "data.shards", "no folder or shard", f": {HOW_TO_MAKE_SHARDS}"))
        if (folder / MANIFEST).is_file():
            return cls._of_manifest(folder)
        if (folder / UNFINISHED).is_file():
            raise ValueError(f"data.shards={spec} was not packed to its end: run the same packing again")
        paths = sorted(folder.glob("*.tar"))
        if not paths:
            raise ValueError(f"data.shards={spec} is a folder without *.tar shards: {HOW_TO_MAKE_SHARDS}")
        return cls._of_indexes(paths)

    @classmethod
    def _of_manifest(cls, folder: Path) -> LocalShards:
        manifest = Manifest.read(folder / MANIFEST)
        with os.scandir(folder) as files:  # much faster than asking for each by its path
            sizes = {file.name: file.stat().st_size for file in files if file.is_file()}
        for entry in manifest.shards:
            shard, found = folder / entry.name, sizes.get(entry.name)
            if found is None:
                raise ValueError(f"shard {shard} is missing, and {folder / MANIFEST} lists it: copy it again")
            if found != entry.tar_bytes:
                raise ValueError(
                    f"shard {shard} is truncated or another file: it has {found} bytes, "
                    f"{MANIFEST} says {entry.tar_bytes}: copy or pack it again"
                )
        return cls([folder / entry.name for entry in manifest.shards], manifest.shards, manifest)

    @classmethod
    def _of_indexes(cls, paths: Sequence[Path]) -> LocalShards:
        storage = cls(paths, (), None)
        storage.entries = tuple(entry_of(storage.read_index(number)) for number in range(len(paths)))
        return storage

    def read_index(self, number: int) -> ShardIndex:
        shard = self.shards[number]
        assert isinstance(shard, Path)
        try:
            if index_path(shard).is_file():
                return ShardIndex.read(shard)
            return self._unwritten.get(shard) or self._scanned(shard)
        except FileNotFoundError as error:
            raise Unreachable(f"shard {shard} is gone: copy or pack it again") from error

    def _scanned(self, shard: Path) -> ShardIndex:
        log.info("indexing %s, which has no index", shard)
        index = scan_tar(shard)
        try:
            index.write()
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            log.info("the index of %s stays in memory: %s", shard, error)
            self._unwritten[shard] = index
        return index

    def open(self, number: int) -> int:
        try:
            return os.open(str(self.shards[number]), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Unreachable(f"shard {self.shards[number]} is gone: copy or pack it again") from error

    def repair(self, number: int) -> bool:
        return False

    def ahead(self, shards_ahead: Callable[[int], Iterable[int]], every: int, readers: int = 1) -> Ahead:
        return Nothing()


def expand(spec: str, field: str, missing: str, remedy: str = "") -> list[Path]:
    """The tars that a brace or glob pattern names, in order. ``field``: where the user wrote it.

    Raises:
        ValueError: not a pattern, or a part of it names nothing, which is told by ``missing`` and ``remedy``.
    """
    try:
        patterns = list(braceexpand(spec))
    except ValueError as error:
        raise ValueError(f"{field}={spec} must be like shard-{{000..099}}.tar: {error}") from error
    paths: list[Path] = []
    for pattern in patterns:
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern))
        if not found:
            raise ValueError(f"{field}={spec}: {missing} {pattern}{remedy}")
        paths += map(Path, found)
    return paths


def _path_of(spec: str) -> str:
    """The path that a file:// address names."""
    host, slash, path = spec.partition("://")[2].partition("/")
    if host not in ("", "localhost") or not slash:
        raise ValueError(f"data.shards={spec} must be like file:///folder: files of another host are not read")
    return slash + unquote(path)
