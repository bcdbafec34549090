"""Cache: files that the processes of a node share, each fetched by one of them and checked by all."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.remote.access import Access
from data_pipeline.remote.part import PART, Part, sha256_of
from data_pipeline.remote.room import Room, free_bytes, private_folder
from data_pipeline.remote.transfer import Altered, Stopped
from data_pipeline.storage import Unreachable

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT)
SMALL = 2**20  # bytes that are enough for a file whose length nobody said, which is an index
LONGEST_NAP = 0.25  # seconds between two looks at what another process does


@dataclass(frozen=True)
class Wanted:
    """A file for the cache.

    Attributes:
        name: under which it is kept: made of a checksum, so that other bytes have another name.
        source: what error messages call it.
        size, sha256: what it must have, where that is known.
    """

    name: str
    source: str
    size: int | None = None
    sha256: str | None = None


class Cache:
    """A folder that holds at most so many bytes. Safe for any number of threads and processes.

    Whoever claims a missing file first fetches it, the others wait for it, and share its failure; the claim of a
    process that was killed is free at once, and the next one goes on where it stopped. A file gets its name only
    once its checksum is right, and every process checks it again when it first opens it.

    Raises:
        ValueError: the folder is another user's, or others may write to it.
    """

    def __init__(self, access: Access) -> None:
        self.folder = private_folder(access.folder)
        self._access = access
        self._room = Room(self.folder, access.cache_bytes)
        self._checked: set[tuple[str, int]] = set()

    def open(self, wanted: Wanted, fill: Callable[[Part], None], stopped: threading.Event) -> int:
        """A descriptor of the file, which the caller closes. fill: fetches it, or the rest of it.

        Raises:
            Unreachable: what ``fill`` raises, other bytes than expected, or nothing happened for long.
            OSError: the disk is full, and nothing is left to evict.
        """
        path, nap = self.folder / wanted.name, _Nap(self._access, wanted.source, stopped)
        began = time.time()
        while True:
            descriptor = self._present(path, wanted)
            if descriptor is not None:
                return descriptor
            part = Part.claim(path.with_name(path.name + PART))
            if part is None:
                nap.take(_progress(path.with_name(path.name + PART)))
                continue
            try:
                if path.exists():
                    part.remove()  # it was finished between the two looks
                elif part.note.failed_at > began:
                    raise Unreachable(part.note.failure)
                else:
                    return self._tried(part, path, wanted, fill, nap)
            finally:
                part.close()

    def drop(self, wanted: Wanted) -> bool:
        """Throw a file away if its bytes are not what they must be; True if it was or is gone."""
        try:
            descriptor = self._opened(self.folder / wanted.name)
        except FileNotFoundError:
            return True
        try:
            whole = wanted.sha256 is not None and sha256_of(descriptor) == wanted.sha256
            if not whole:
                self._room.drop(self.folder / wanted.name, descriptor)
            return not whole
        finally:
            os.close(descriptor)

    def _present(self, path: Path, wanted: Wanted) -> int | None:
        try:
            descriptor = self._opened(path)
        except FileNotFoundError:
            return None
        key = (wanted.name, os.fstat(descriptor).st_ino)
        if key not in self._checked and not _is_whole(descriptor, wanted):
            log.warning("fetching %s again: its copy %s was damaged", wanted.source, path)
            self._room.drop(path, descriptor)
            os.close(descriptor)
            return None
        self._checked.add(key)
        os.utime(descriptor)
        return descriptor

    def _opened(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # says that it is in use
        return descriptor

    def _tried(self, part: Part, path: Path, wanted: Wanted, fill: Callable[[Part], None], nap: _Nap) -> int:
        try:
            return self._filled(part, path, wanted, fill, nap)
        except Unreachable as error:
            part.fail(str(error))
            raise

    def _filled(self, part: Part, path: Path, wanted: Wanted, fill: Callable[[Part], None], nap: _Nap) -> int:
        for last in (False, True):
            try:
                if wanted.size is not None:
                    self._reserve(part, wanted.size, wanted, nap)
                fill(part)
                if wanted.size is None:
                    self._reserve(part, part.size, wanted, nap)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                self._make_room_on_disk(part, wanted, last, error)
                continue
            found = part.sha256()
            if wanted.sha256 in (None, found):
                self._checked.add((wanted.name, os.stat(part.path).st_ino))
                return self._room.finish(part, path)
            part.restart("")
            if last:
                break
            log.warning("fetching %s again: it came with another checksum", wanted.source)
        raise Altered(
            f"{wanted.source} has sha256 {found}, and {wanted.sha256} is expected: publish the shard and its "
            "manifest or index again, as they were packed"
        )

    def _reserve(self, part: Part, size: int, wanted: Wanted, nap: _Nap) -> None:
        if size > self._access.cache_bytes:
            raise ValueError(
                f"data.cache_bytes={self._access.cache_bytes} is less than the {size} bytes of {wanted.source}: "
                "give the cache room for a few shards of each process"
            )
        while not self._room.reserve(part, size):
            nap.take(None)

    def _make_room_on_disk(self, part: Part, wanted: Wanted, last: bool, error: OSError) -> None:
        need = SMALL + part.size if wanted.size is None else wanted.size - part.size
        if not last:
            log.warning("the disk of data.cache=%s is full: evicting for %s", self.folder, wanted.source)
            self._room.free(part, need)
        if last or free_bytes(self.folder) < need:
            part.remove()
            raise OSError(
                error.errno,
                f"the disk is full: {wanted.source} needs {need} bytes more in data.cache={self.folder}, where "
                f"{free_bytes(self.folder)} are free with nothing left to evict: name a folder on a larger disk",
            ) from error


class _Nap:
    """Waiting for other processes, while something moves."""

    def __init__(self, access: Access, source: str, stopped: threading.Event) -> None:
        self._patience = access.seconds(0) + access.timeout
        self._source, self._stopped = source, stopped
        self._seconds, self._moved = 0.01, time.monotonic()
        self._seen: object = None

    def take(self, seen: object) -> None:
        """Wait a moment. seen: what changes while something moves."""
        if seen != self._seen:
            self._seen, self._moved, self._seconds = seen, time.monotonic(), 0.01
        if time.monotonic() - self._moved > self._patience:
            raise Unreachable(
                f"{self._source}: for {self._patience:.0f} s no other process has come further in fetching it, or "
                "left room in data.cache for it: look after these processes, or raise data.cache_bytes"
            )
        if self._stopped.wait(self._seconds):
            raise Stopped(f"{self._source} was waited for when the stream was closed")
        self._seconds = min(LONGEST_NAP, self._seconds * 1.5)


def _progress(part: Path) -> object:
    try:
        state = part.stat()
        return state.st_ino, state.st_size, state.st_mtime_ns
    except FileNotFoundError:
        return None


def _is_whole(descriptor: int, wanted: Wanted) -> bool:
    if wanted.size is not None and os.fstat(descriptor).st_size != wanted.size:
        return False
    return wanted.sha256 in (None, sha256_of(descriptor))
