"""ShardReader: bytes of a shard by their span."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.index import Member


@dataclass
class _OpenShard:
    descriptor: int
    users: int = 0


class ShardReader:
    """Reads members by ``os.pread``, from any number of threads, keeping at most ``max_open`` files open.

    A file in use is never closed, so for a moment there may be one more per thread. A closed reader can be
    used again: files are opened when they are needed.
    """

    def __init__(self, max_open: int = 64) -> None:
        if max_open < 1:
            raise ValueError(f"max_open must be at least 1, got {max_open}")
        self.max_open = max_open
        self._open: dict[Path, _OpenShard] = {}
        self._lock = threading.Lock()

    def read(self, member: Member) -> bytes:
        """The bytes of one member.

        Raises:
            ValueError: the shard ends before the member does.
        """
        with self._lend(member.shard) as descriptor:
            data = os.pread(descriptor, member.size, member.offset)
        if len(data) != member.size:
            raise ValueError(
                f"{member}: only {len(data)} of {member.size} bytes are there; the shard was cut or replaced "
                "since it was opened: copy or pack it again"
            )
        return data

    def close(self) -> None:
        """Close all files that no thread is reading from."""
        with self._lock:
            self._evict(down_to=0)

    @contextmanager
    def _lend(self, shard: Path) -> Iterator[int]:
        with self._lock:
            handle = self._open.pop(shard, None) or _OpenShard(os.open(shard, os.O_RDONLY | os.O_CLOEXEC))
            self._open[shard] = handle  # last in the dictionary: used most recently
            handle.users += 1
            self._evict(down_to=self.max_open)
        try:
            yield handle.descriptor
        finally:
            with self._lock:
                handle.users -= 1

    def _evict(self, down_to: int) -> None:
        idle = [shard for shard, handle in self._open.items() if handle.users == 0]
        for shard in idle[: max(0, len(self._open) - down_to)]:
            os.close(self._open.pop(shard).descriptor)
