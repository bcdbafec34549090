"""RemoteShards: shards on servers, read through the cache that the processes of a node share."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from data_pipeline.index import ShardIndex
from data_pipeline.manifest import Manifest, ShardEntry
from data_pipeline.remote.files import Files, RemoteShard
from data_pipeline.remote.prefetch import Prefetcher
from data_pipeline.storage import Ahead, Storage, Unreachable, check_entry

log = logging.getLogger(__name__)


class RemoteShards(Storage):
    """A shard is downloaded whole when it is first needed, or before (``ahead``), and then read like any file.

    One that could not be had is not asked for again by this process. Where data.on_error=skip, its samples are
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
        self._lost: dict[int, str] = {}
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
        shard = self._remote[number]
        with self._remembering(number):
            before = self._index(number)
            self._files.drop_index(shard)
            damaged = self._files.drop_damaged(shard)
            return damaged or not before.same_as(self._index(number))

    def ahead(self, shards_ahead: Callable[[int], Iterable[int]], every: int) -> Ahead:
        with self._lock:
            if self._streams == 0:
                self._stopped = threading.Event()
            self._streams += 1
        sizes = [entry.tar_bytes for entry in self.entries]
        return Prefetcher(
            self._fetch, shards_ahead, every=every, sizes=sizes, most=self._most, on_close=self._close_stream
        )

    def _close_stream(self) -> None:
        """With the last stream, whoever still waits for a server stops."""
        with self._lock:
            self._streams -= 1
            if self._streams == 0:
                self._stopped.set()

    def _fetch(self, number: int) -> None:
        """Ahead of its need, and so without remembering what could not be had."""
        if number not in self._lost:
            os.close(self._files.open(self._remote[number], self._stopped))
            self._index(number)

    def _index(self, number: int) -> ShardIndex:
        index = self._files.index(self._remote[number], self._stopped)
        check_entry(index, self.entries[number])
        return index

    @contextmanager
    def _remembering(self, number: int) -> Iterator[None]:
        if number in self._lost:
            raise Unreachable(self._lost[number])
        try:
            yield
        except Unreachable as error:
            self._lost[number] = str(error)
            raise
