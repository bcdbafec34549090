"""Prefetcher: downloads shards before they are needed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from data_pipeline.remote.transfer import Stopped
from data_pipeline.storage import Ahead

log = logging.getLogger(__name__)

THREADS = 4
GRACE = 1.0  # seconds that closing waits for a thread, which may hang on a server until its time-out


class Prefetcher(Ahead):
    """A few threads that fetch what comes next, in the order in which it is needed.

    Nothing depends on it: a shard that it did not fetch is fetched where it is needed, and an error is raised
    there. It fetches each shard once for each time that it comes up, and no more than the cache holds.

    Args:
        fetch: brings one shard near.
        shards_ahead: the shards needed from a cursor on, soonest first.
        every: after how many positions it is worth asking again.
        sizes: of the shards in bytes. most: how many bytes of them may be fetched ahead together: this rank's
            part of the cache.
        on_close: called when it stops.
    """

    def __init__(
        self,
        fetch: Callable[[int], None],
        shards_ahead: Callable[[int], Iterable[int]],
        *,
        every: int,
        sizes: Sequence[int],
        most: int,
        on_close: Callable[[], None],
    ) -> None:
        self._fetch, self._shards_ahead = fetch, shards_ahead
        self._every, self._sizes, self._most = every, sizes, most
        self._on_close = on_close
        self._change, self._asking = threading.Condition(), threading.Lock()
        self._cursor, self._closed, self._warned = 0, False, False
        self._asked_at: int | None = None
        self._coming: Iterator[int] = iter(())
        self._taken: set[int] = set()  # since the order was last asked
        self._before: set[int] = set()  # since it was asked before that
        self._threads: list[threading.Thread] = []

    def advance(self, cursor: int) -> None:
        with self._change:
            self._cursor = cursor
            while len(self._threads) < THREADS and not self._closed:
                # Daemons: a process that ends need not wait for a server.
                thread = threading.Thread(target=self._work, name="data-ahead", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            if self._closed:
                return
            self._closed = True
            self._change.notify_all()
        self._on_close()
        for thread in self._threads:
            thread.join(GRACE)

    def _work(self) -> None:
        while (shard := self._next()) is not None:
            try:
                self._fetch(shard)
            except Stopped:
                return
            except (OSError, ValueError) as error:
                log.warning("not fetched ahead, so tried again when it is needed: %s", error)

    def _next(self) -> int | None:
        """The next shard to fetch, once there is one; None when closed."""
        with self._asking:  # not the lock that `advance` takes: the order may think for a while
            while not self._closed:
                shard = next(self._coming, None)
                if shard is None:
                    self._ask_again()
                elif shard not in self._taken:
                    self._taken.add(shard)
                    if shard not in self._before:
                        return shard
            return None

    def _ask_again(self) -> None:
        with self._change:
            self._change.wait_for(
                lambda: self._closed or self._asked_at is None or self._cursor - self._asked_at >= self._every
            )
            self._asked_at = self._cursor
        self._before, self._taken = self._taken, set()
        self._coming = self._within(self._shards_ahead(self._asked_at))

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "this rank's part of data.cache_bytes, %d, holds fewer shards than it reads in two windows, so "
                "some are fetched again and again: raise it, lower data.window or raise data.lanes",
                self._most,
            )

    def _within(self, shards: Iterable[int]) -> Iterator[int]:
        room = self._most
        for shard in shards:
            room -= self._sizes[shard]
            if room < 0:
                self._warn()
                return
            yield shard
