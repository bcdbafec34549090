"""Part: the beginning of a file in the cache, claimed by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

PART, NOTE = ".part", ".note"  # after the name of the whole file


@dataclass(frozen=True)
class Note:
    """What is known of a part.

    Attributes:
        validator: of which file it is the beginning; "" is of none that could be gone on with.
        size: how long the file will be, so that others leave room.
        failure, failed_at: why it could not be finished, and when.
    """

    validator: str = ""
    size: int = 0
    failure: str = ""
    failed_at: float = 0.0

    @classmethod
    def read(cls, part: Path) -> Note:
        """The note of a part; of one that is missing or was cut, that of a part that is begun again."""
        try:
            return cls(**json.loads(part.with_suffix(NOTE).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return cls()


class Part:
    """A file that grows under another name until it is whole. A sink for ``Transfer``.

    The claim is a lock on the open file, which the kernel lifts when the process ends, however it ends; whoever
    claims it next goes on from there.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self.note = Note.read(path)
        self._descriptor: int | None = descriptor

    @classmethod
    def claim(cls, path: Path) -> Part | None:
        """The part at ``path``, made if there is none, or None while another has claimed it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if lock(descriptor, fcntl.LOCK_EX) and is_at(descriptor, path):
            return cls(path, descriptor)
        os.close(descriptor)
        return None

    @property
    def validator(self) -> str:
        return self.note.validator

    def restart(self, validator: str) -> None:
        """Forget all bytes: those of the file with this validator come."""
        os.ftruncate(self._open, 0)
        self.size = 0
        self._write(replace(self.note, validator=validator))

    def write(self, piece: bytes) -> None:
        """Append."""
        left = memoryview(piece)
        while left:
            written = os.pwrite(self._open, left, self.size)
            self.size, left = self.size + written, left[written:]

    def reserve(self, size: int) -> None:
        """Note how long the file will be."""
        self._write(replace(self.note, size=size))

    def fail(self, failure: str) -> None:
        """Note why the file cannot be finished, for those who have waited for it."""
        with suppress(OSError):  # of a full disk: then they find out by themselves
            self._write(replace(self.note, failure=failure, failed_at=time.time()))

    def sha256(self) -> str:
        return sha256_of(self._open)

    def finish(self, path: Path) -> int:
        """Give the file its name; the claim becomes the lock of a reader, whose descriptor this is."""
        os.rename(self.path, path)
        self.path.with_suffix(NOTE).unlink(missing_ok=True)
        fcntl.flock(self._open, fcntl.LOCK_SH)
        descriptor, self._descriptor = self._open, None
        return descriptor

    def remove(self) -> None:
        """Remove the file while it is claimed."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(NOTE).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the file as it is to whoever claims it next."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def _open(self) -> int:
        assert self._descriptor is not None
        return self._descriptor

    def _write(self, note: Note) -> None:
        if note != self.note:
            self.note = note
            new = self.path.with_suffix(f"{NOTE}.new")  # of one claim at a time, so that the name may be fixed
            try:
                new.write_text(json.dumps(asdict(note)))
                os.replace(new, self.path.with_suffix(NOTE))
            finally:
                new.unlink(missing_ok=True)


def lock(descriptor: int, kind: int) -> bool:
    """Lock an open file if nobody else holds a lock that is in the way."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one that has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def sha256_of(descriptor: int) -> str:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()
