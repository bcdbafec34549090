"""Part: the beginning of a file in the cache, claimed by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path

PART, NOTE = ".part", ".note"  # after the name of the whole file


class Part:
    """A file that grows under another name until it is whole. A sink for ``Transfer``.

    The claim is a lock on the open file, which the kernel lifts when the process ends, however it ends; whoever
    claims it next goes on from there. A note beside it says which file it is the beginning of (the validator)
    and how long that will be, so that others leave room.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self.validator, self._reserved = read_note(path)
        self._descriptor: int | None = descriptor

    @classmethod
    def claim(cls, path: Path) -> Part | None:
        """The part at ``path``, made if there is none, or None while another has claimed it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if lock(descriptor, fcntl.LOCK_EX) and is_at(descriptor, path):
            return cls(path, descriptor)
        os.close(descriptor)
        return None

    def restart(self, validator: str) -> None:
        """Forget all bytes: those of the file with this validator come."""
        os.ftruncate(self._open, 0)
        self.size, self.validator = 0, validator
        self._write_note()

    def write(self, piece: bytes) -> None:
        """Append."""
        left = memoryview(piece)
        while left:
            written = os.pwrite(self._open, left, self.size)
            self.size, left = self.size + written, left[written:]

    def reserve(self, size: int) -> None:
        """Note how long the file will be."""
        if size != self._reserved:
            self._reserved = size
            self._write_note()

    def sha256(self) -> str:
        return sha256_of(self._open)

    def finish(self, path: Path) -> int:
        """Give the file its name; the claim becomes the lock of a reader, whose descriptor this is."""
        os.rename(self.path, path)
        _note(self.path).unlink(missing_ok=True)
        fcntl.flock(self._open, fcntl.LOCK_SH)
        descriptor, self._descriptor = self._open, None
        return descriptor

    def remove(self) -> None:
        """Remove the file while it is claimed."""
        self.path.unlink(missing_ok=True)
        _note(self.path).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the file as it is to whoever claims it next."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def _open(self) -> int:
        assert self._descriptor is not None
        return self._descriptor

    def _write_note(self) -> None:
        _note(self.path).write_text(json.dumps({"validator": self.validator, "size": self._reserved}))


def read_note(part: Path) -> tuple[str, int]:
    """(validator, size) of a part; of a note that is missing or was cut, ("", 0): the part is begun again."""
    try:
        fields = json.loads(_note(part).read_bytes())
        return str(fields["validator"]), int(fields["size"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "", 0


def _note(part: Path) -> Path:
    return part.with_suffix(NOTE)


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
