"""Batches: one rank's part of each global batch, loaded ahead by threads."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import TracebackType
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from data_pipeline.config import DataConfig
from data_pipeline.room import Room, Rooms
from data_pipeline.storage import Ahead

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch, and where the stream stands after it.

    ``x`` holds pixels as bytes, or whatever else as floats in the range that models see. The channels of a pixel
    lie side by side in memory, as decoders write them: to put them apart is left to the conversion to floats
    (models/pixels.py), which goes through every byte in any case.
    ``index`` is each sample's position in the endless global stream: the key of its noise. ``cursor`` is the
    stream position after the whole global batch of ``global_size`` images: opening the stream there continues
    it.
    """

    x: UInt8[Tensor, "b c h w"] | Float32[Tensor, "b c h w"]
    condition: Int64[Tensor, " b"] | None
    index: Int64[Tensor, " b"]
    cursor: int
    global_size: int
    captions: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Skip:
    """At a stream position an undecodable sample was passed over; the reason names shard, key and byte span."""

    position: int
    reason: str


# (positions, room for their samples, set when nobody wants the result) -> what was skipped
Load: TypeAlias = Callable[[np.ndarray, Room, threading.Event], list[Skip]]
# cursor -> the stream positions of this rank's part of the global batch from there on
Share: TypeAlias = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class _Pending:
    positions: np.ndarray
    room: Room
    cursor: int
    chunks: list[Callable[[], list[Skip]]]

    def batch(self, global_size: int) -> Batch:
        room = self.room
        return Batch(
            x=torch.from_numpy(room.images),
            condition=None if room.labels is None else torch.from_numpy(room.labels),
            index=torch.from_numpy(self.positions),
            cursor=self.cursor,
            global_size=global_size,
            captions=None if room.captions is None else tuple(room.captions),
        )


class Batches:
    """An endless iterator over ``Batch``, and a context manager: leaving it ends the worker threads.

    An error in a worker is raised where its batch is due, and again if the batch is asked for again. What was
    loaded ahead is no state: only batches that were handed out count.

    Attributes:
        waiting_seconds: how long the caller has waited for data so far.
        skipped: of the batches handed out, at how many positions stands a substitute.
    """

    def __init__(
        self,
        config: DataConfig,
        load: Load,
        share: Share,
        cursor: int,
        ahead: Ahead,
        on_close: Callable[[], None],
        pinned: bool = False,
    ) -> None:
        self.waiting_seconds = 0.0
        self.skipped = 0
        self._config = config
        self._load = load
        self._share = share
        self._cursor = cursor
        self._ahead = ahead
        self._on_close = on_close
        self._rooms = Rooms(config, len(share(cursor)), pinned)
        self._pending: deque[_Pending] = deque()
        self._closed = threading.Event()
        self._reported: set[str] = set()
        self._threads = ThreadPoolExecutor(config.workers, "data") if config.workers else None

    def __enter__(self) -> Batches:
        self._load_ahead()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        if self._closed.is_set():
            raise ValueError("the stream is closed: ask for batches inside `with stream.open(…) as batches`")
        started = time.perf_counter()
        self._load_ahead()
        pending = self._pending[0]
        skips = [skip for chunk in pending.chunks for skip in chunk()]
        self.waiting_seconds += time.perf_counter() - started
        self._pending.popleft()
        self._report(skips)
        self._load_ahead()
        return pending.batch(self._config.batch)

    def close(self) -> None:
        """End the worker threads; each finishes at most the image it is decoding.

        Who waits for a web server is told within a moment; while a connection is made, and of an object store,
        within its time-out.
        """
        self._closed.set()
        self._ahead.close()  # before the threads end: one may be waiting for a server
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
        self._on_close()

    def _load_ahead(self) -> None:
        depth = self._config.prefetch if self._threads is not None else 1
        while len(self._pending) < depth:
            self._pending.append(self._begin())

    def _begin(self) -> _Pending:
        config = self._config
        self._ahead.advance(self._cursor)
        positions = self._share(self._cursor)
        self._cursor += config.batch
        count = len(positions)
        room = self._rooms.take()
        # Every worker gets a part of every batch, so that all are busy however few batches are loaded ahead.
        parts = min(max(1, config.workers), count)
        bounds = [count * part // parts for part in range(parts + 1)]
        chunks = [self._submit(positions[i:j], room.part(i, j)) for i, j in pairwise(bounds)]
        return _Pending(positions, room, self._cursor, chunks)

    def _submit(self, positions: np.ndarray, room: Room) -> Callable[[], list[Skip]]:
        work = partial(self._load, positions, room, self._closed)
        return work if self._threads is None else self._threads.submit(work).result

    def _report(self, skips: list[Skip]) -> None:
        self.skipped += len({skip.position for skip in skips})
        for skip in skips:
            if skip.reason not in self._reported:  # of a shard that cannot be had, once
                self._reported.add(skip.reason)
                log.warning("skipped %s", skip.reason)
