"""RemoteShards: shards on servers, read through the cache that the processes of a node share."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from data_pipeline.index import ShardIndex
from data_pipeline.manifest import Manifest, ShardEntry
from data_pipeline.remote.files import Files, RemoteShard
from data_pipeline.remote.prefetch import Prefetcher
from data_pipeline.remote.transfer import Altered, Missing
from data_pipeline.storage import Ahead, Storage, Unreachable, check_entry

log = logging.getLogger(__name__)

AGAIN = 300.0  # seconds after which a shard that could not be had is asked for again


class RemoteShards(Storage):
    """A shard is downloaded whole when it is first needed, or before (``ahead``), and then read like any file.

    One that could not be had is not asked for again for ``AGAIN`` seconds, and never if the server said that it
    has none or has other bytes. Where data.on_error=skip, its samples are
    passed over as undecodable ones are: positions, the sizes of batches and the keys of the noise stay aligned on
    all ranks; but the substitutes are chosen by the process that misses the shard, so that the batches of a run in
    which only one node missed it hold other samples than those of a run in which none did.

    Args:
        most: how many bytes of shards may be fetched ahead.
    """

    # An open file takes disk space even when it has been evicted, and is evicted last although it has been read.
    most_open = 4

    def __init__(
        self,
        files: Files,
        remote: Sequence[RemoteShard],
        entries: Sequence[ShardEntry],
        manifest: Manifest | None,
        most: int,
    ) -> None:
        self.shards = tuple(shard.url for shard in remote)
        self.entries, self.manifest = tuple(entries), manifest
        self._files, self._remote, self._most = files, tuple(remote), most
        self._lost: dict[int, tuple[float, str]] = {}  # until when, and why
        self._judged: dict[int, bool] = {}
        self._repairing = threading.Lock()
        self._stopped, self._streams, self._lock = threading.Event(), 0, threading.Lock()

    def open(self, number: int) -> int:
        with self._remembering(number):
            return self._files.open(self._remote[number], self._stopped)

    def read_index(self, number: int) -> ShardIndex:
        shard = self._remote[number]
        with self._remembering(number):
            try:
                return self._index(number)
            except ValueError as error:
                log.warning("fetching an index again: %s", error)
                self._files.drop_index(shard)
                return self._index(number)

    def repair(self, number: int) -> bool:
        """Each shard is looked at once: whatever else does not decode there was published so."""
        with self._repairing:
            if number not in self._judged:
                self._judged[number] = self._was_damaged(number)
            return self._judged[number]

    def ahead(self, shards_ahead: Callable[[int], Iterable[int]], every: int, readers: int = 1) -> Ahead:
        with self._lock:
            if self._streams == 0:
                self._stopped = threading.Event()
            self._streams += 1
        sizes = [entry.tar_bytes for entry in self.entries]
        return Prefetcher(
            self._fetch,
            shards_ahead,
            every=every,
            sizes=sizes,
            most=self._most // readers,
            on_close=self._close_stream,
        )

    def _close_stream(self) -> None:
        """With the last stream, whoever still waits for a server stops."""
        with self._lock:
            self._streams -= 1
            if self._streams == 0:
                self._stopped.set()

    def _fetch(self, number: int) -> None:
        """Ahead of its need, and so without remembering what could not be had."""
        if self._why_lost(number) is None:
            os.close(self._files.open(self._remote[number], self._stopped))
            self._index(number)

    def _index(self, number: int) -> ShardIndex:
        index = self._files.index(self._remote[number], self._stopped)
        check_entry(index, self.entries[number])
        return index

    @contextmanager
    def _remembering(self, number: int) -> Iterator[None]:
        lost = self._why_lost(number)
        if lost is not None:
            raise Unreachable(lost)
        try:
            yield
        except Unreachable as error:
            until = math.inf if isinstance(error, (Missing, Altered)) else time.monotonic() + AGAIN
            self._lost[number] = until, str(error)
            raise

    def _why_lost(self, number: int) -> str | None:
        until, why = self._lost.get(number, (-math.inf, ""))
        return why if time.monotonic() < until else None

    def _was_damaged(self, number: int) -> bool:
        """Whether what the cache had of a shard was not what the server has; it has been thrown away."""
        shard = self._remote[number]
        damaged = self._files.drop_damaged(shard)
        try:
            return self._files.refresh_index(shard, self._stopped) or damaged
        except (Unreachable, ValueError) as error:
            log.warning("the index of %s is not compared with the server's: %s", shard.url, error)
            return damaged
