"""Room: the bytes of a cache's folder, bounded for all processes that share it together."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from data_pipeline.remote.part import NOTE, PART, Note, Part, is_at, lock

LOCK = "lock"
_OWN = re.compile(r"[0-9a-f]{64}\.(tar|json)(\.part)?")
STALE = 24 * 3600.0  # seconds after which a part that nobody claims is litter


class _File(NamedTuple):
    name: str
    bytes: int
    used: float

    @property
    def is_part(self) -> bool:
        return self.name.endswith(PART)


class Room:
    """Reserves bytes and evicts what was used least recently.

    Files that a reader holds open are evicted last, as their bytes are only free once they are closed. An
    evicted file that is open stays readable.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most

    def reserve(self, part: Part, size: int) -> bool:
        """Make room for the ``size`` bytes that a part will have; False while others' parts need too much."""
        with self._locked():
            files = [file for file in self._others(part) if not self._is_litter(file)]
            excess = sum(file.bytes for file in files) + size - self.most
            if excess > 0:
                victims = [file for file in files if not (file.is_part and _claimed(self.folder / file.name))]
                if excess > sum(file.bytes for file in victims):
                    return False
                self._evict(victims, lambda freed: freed >= excess)
            part.reserve(size)
            return True

    def free(self, part: Part, size: int) -> None:
        """Make room on the disk itself, where it is full before the cache is."""
        with self._locked():
            self._evict(self._others(part), lambda freed: free_bytes(self.folder) >= size)

    def finish(self, part: Part, path: Path) -> int:
        """Give a part its name, and nobody counts it twice or not at all meanwhile."""
        with self._locked():
            return part.finish(path)

    def drop(self, path: Path, descriptor: int) -> None:
        """Remove a file if it is still the one that is open here."""
        with self._locked():
            if is_at(descriptor, path):
                path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # held for a scan of the folder, never for a transfer
            yield
        finally:
            os.close(descriptor)

    def _others(self, part: Part) -> list[_File]:
        """The cache's files but this part; a part counts as long as it will be. Files of others are left alone."""
        files, own = [], part.path.name
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name = entry.name
                if not _OWN.fullmatch(name) or name == own:
                    continue
                try:
                    state = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # given up meanwhile
                size = state.st_size
                if name.endswith(PART):
                    size = max(size, Note.read(self.folder / name).size)
                files.append(_File(name, size, state.st_mtime))
        return files

    def _is_litter(self, file: _File) -> bool:
        """Whether it was a part that nobody wants any more, and is gone now."""
        stale = file.is_part and file.used < time.time() - STALE
        return stale and _remove(self.folder / file.name, even_open=False)

    def _evict(self, files: list[_File], enough: Callable[[int], bool]) -> None:
        """Remove files, idle and least recently used first, until it is enough."""
        freed = 0
        for even_open in (False, True):
            for file in sorted(files, key=lambda file: file.used):
                if enough(freed):
                    return
                if _remove(self.folder / file.name, even_open):
                    freed += file.bytes


def _remove(path: Path, even_open: bool) -> bool:
    """Remove a file that nobody holds; with ``even_open`` one that readers hold too, but no claimed part."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        idle = lock(descriptor, fcntl.LOCK_EX)
        if not idle and (path.suffix == PART or not even_open):
            return False
        path.unlink()
        if path.suffix == PART:
            path.with_suffix(NOTE).unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _claimed(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def private_folder(folder: Path) -> Path:
    """Make a folder that only this user writes to, or check that it is one.

    Raises:
        ValueError: it is a link or somebody else's, or others may write to it, and so decide what is read.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise ValueError(
            f"data.cache={folder} must be a folder of this user's own that nobody else may write to (mode 0700), "
            f"got mode {stat.S_IMODE(state.st_mode):04o} of user {state.st_uid}: name another one"
        )
    return folder
