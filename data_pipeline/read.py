"""ShardReader: bytes of a shard by their span."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tarfile import BLOCKSIZE

from data_pipeline.index import Member
from data_pipeline.storage import Place


def _heads(header: bytes, member: Member) -> bool:
    """Whether a tar header says the member's size and name."""
    name = f"{member.key}.{member.extension}"
    plain = name.isascii() and len(name) < 100 and header.startswith(name.encode() + b"\0")
    if plain and header.startswith(b"%011o" % member.size, 124):
        return True
    return _heads_in_some_format(header, name.lower(), member.size)


def _heads_in_some_format(header: bytes, name_of_index: str, size_of_index: int) -> bool:
    """The same in every format of tar; of a long name the header has only the first bytes."""
    name, size = header[:100].rstrip(b"\0"), header[124:136].rstrip(b"\0 ")
    prefix = header[345:500].rstrip(b"\0") if header[257:262] == b"ustar" and header[263:265] == b"00" else b""
    stated = prefix + b"/" + name if prefix else name
    # The pax format keeps a name that is not ASCII elsewhere, and question marks here.
    spellings = name_of_index.encode("utf-8", "surrogateescape"), name_of_index.encode("ascii", "replace")
    named = any(spelling.startswith(stated.lower()) for spelling in spellings)
    return named and size.isdigit() and int(size, 8) == size_of_index


@dataclass
class _OpenShard:
    descriptor: int
    users: int = 0
    forgotten: bool = False


def open_file(shard: Place) -> int:
    """A descriptor of a shard that lies in the file system."""
    assert isinstance(shard, Path), shard
    return os.open(shard, os.O_RDONLY | os.O_CLOEXEC)


class ShardReader:
    """Reads members by ``os.pread``, from any number of threads, keeping at most ``max_open`` files open.

    ``open_shard`` gives a descriptor of a shard's bytes; it may take long, and shards that are open are read
    meanwhile.

    A file in use is never closed, so for a moment there may be one more per thread. A closed reader can be
    used again: files are opened when they are needed.
    """

    def __init__(self, max_open: int = 64, open_shard: Callable[[Place], int] = open_file) -> None:
        if max_open < 1:
            raise ValueError(f"max_open must be at least 1, got {max_open}")
        self.max_open = max_open
        self._open_shard = open_shard
        self._open: dict[Place, _OpenShard] = {}
        self._lock = threading.Lock()

    def read(self, member: Member) -> bytes:
        """The bytes of one member, read together with the tar header before them, which must be the member's own.

        Raises:
            ValueError: the shard ends before the member does, or holds another one there.
        """
        handle = self._borrow(member.shard)
        try:
            block = os.pread(handle.descriptor, BLOCKSIZE + member.size, max(0, member.offset - BLOCKSIZE))
        finally:
            with self._lock:
                handle.users -= 1
                self._close_if_forgotten(handle)
        header, data = block[:BLOCKSIZE], block[BLOCKSIZE:]
        if len(data) != member.size:
            raise ValueError(
                f"{member}: only {len(data)} of {member.size} bytes are there; the shard was cut or replaced "
                "since it was opened: copy or pack it again"
            )
        if not _heads(header, member):
            raise ValueError(
                f"{member}: another member lies there, so the index disagrees with its shard: remove the index "
                "(it is built anew), or pack the shard again"
            )
        return data

    def close(self) -> None:
        """Close all files that no thread is reading from."""
        with self._lock:
            self._evict(down_to=0)

    def forget(self, shard: Place) -> None:
        """Open this shard anew when it is read next."""
        with self._lock:
            handle = self._open.pop(shard, None)
            if handle is not None:
                handle.forgotten = True
                self._close_if_forgotten(handle)

    def _borrow(self, shard: Place) -> _OpenShard:
        while True:
            with self._lock:
                handle = self._open.pop(shard, None)
                if handle is not None:
                    self._open[shard] = handle  # last in the dictionary: used most recently
                    handle.users += 1
                    if len(self._open) > self.max_open:
                        self._evict(down_to=self.max_open)
                    return handle
            descriptor = self._open_shard(shard)
            with self._lock:
                if shard in self._open:
                    os.close(descriptor)  # another thread was faster
                else:
                    self._open[shard] = _OpenShard(descriptor)

    def _close_if_forgotten(self, handle: _OpenShard) -> None:
        if handle.forgotten and handle.users == 0:
            os.close(handle.descriptor)

    def _evict(self, down_to: int) -> None:
        idle = [shard for shard, handle in self._open.items() if handle.users == 0]
        for shard in idle[: max(0, len(self._open) - down_to)]:
            os.close(self._open.pop(shard).descriptor)
