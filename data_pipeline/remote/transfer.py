"""Transfer: whole files over connections that fail, by asking again for the bytes that are missing."""

from __future__ import annotations

import random
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from data_pipeline.remote.access import LEAST_RATE, Access
from data_pipeline.remote.url import Url
from data_pipeline.storage import Unreachable

LONGEST_PAUSE = 30.0  # seconds of back-off
LONGEST_WISH = 60.0  # seconds that a server's Retry-After is honoured for
WATCH = 0.1  # seconds between two looks at a server that holds a thread
T = TypeVar("T")


class Missing(Unreachable):
    """The server says that there is no such file."""


class Altered(Unreachable):
    """The server has other bytes than the manifest or the index says."""


class Stopped(OSError):
    """The stream was closed while a file was on its way."""


class Transient(Exception):
    """A try that failed and may go better; ``after``: seconds that the server asks to wait."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Facts:
    """What a server says of a file: its length, and a sign that changes with its bytes ("" for none)."""

    total: int | None
    validator: str


@dataclass(frozen=True)
class Body:
    """Bytes of a file from ``start`` on, as they come."""

    start: int
    facts: Facts
    pieces: Iterator[bytes]


class Transport(ABC):
    """One kind of server. Thread-safe.

    The first two methods raise ``Transient`` where another try may help, and ``Unreachable`` where none will.
    """

    @abstractmethod
    def facts(self, url: Url) -> Facts:
        """What the server says of a file."""

    @abstractmethod
    def open(self, url: Url, start: int, validator: str) -> AbstractContextManager[Body]:
        """The file from byte ``start`` on, or from 0 where it is no longer the one of the ``validator``."""

    @abstractmethod
    def interrupt(self, thread: int) -> None:
        """Make what this thread waits for fail, if that can be done."""


class Sink(Protocol):
    """What a download is written to; it may hold the beginning already, of the file with this validator."""

    size: int

    @property
    def validator(self) -> str:
        """Of which file it holds the beginning; "" is of none that could be gone on with."""

    def restart(self, validator: str) -> None:
        """Forget all bytes: those of the file with this validator come."""

    def write(self, piece: bytes) -> None:
        """Append."""


class Memory:
    """A sink for small files."""

    def __init__(self) -> None:
        self.restart("")

    def restart(self, validator: str) -> None:
        self.size, self.validator, self.data = 0, validator, bytearray()

    def write(self, piece: bytes) -> None:
        self.data += piece
        self.size += len(piece)


class Transfer:
    """Fetches files with patience: back-off with jitter between tries, and an end to all of them together."""

    def __init__(self, transport: Transport, access: Access) -> None:
        self._transport = transport
        self._access = access

    def facts(self, url: Url, stopped: threading.Event) -> Facts:
        """What the server says of a file.

        Raises:
            Unreachable: it cannot be had; Missing where the server says that there is none.
        """
        return self._tries(url, stopped).until_done(lambda: self._transport.facts(url), Memory())

    def read(self, url: Url, most: int, stopped: threading.Event) -> bytes:
        """A small file of at most ``most`` bytes.

        Raises:
            Unreachable: as ``facts``, or it is longer.
        """
        memory = Memory()
        self.download(url, memory, None, stopped, most)
        return bytes(memory.data)

    def download(
        self, url: Url, sink: Sink, size: int | None, stopped: threading.Event, most: int | None = None
    ) -> None:
        """Write a file to ``sink``, from where that ends. size: what it must have, where that is known.

        Raises:
            Unreachable: it cannot be had, or has another length; says how often it was tried.
            Stopped: the event was set.
        """
        tries = self._tries(url, stopped)
        if size is None or sink.size != size:
            tries.until_done(lambda: self._once(url, sink, size, tries, most), sink)

    def _tries(self, url: Url, stopped: threading.Event) -> _Tries:
        return _Tries(url, self._access, stopped, self._transport.interrupt)

    def _once(self, url: Url, sink: Sink, size: int | None, tries: _Tries, most: int | None) -> None:
        # Without a validator nobody knows whether the bytes that follow are of the same file.
        with self._transport.open(url, sink.size if sink.validator else 0, sink.validator) as body:
            total = body.facts.total
            if size is not None and total not in (None, size):
                raise tries.once_more(
                    f"has {total} bytes, and {size} are expected: publish the shard and its manifest or index "
                    "again, as they were packed"
                )
            if body.start == 0:
                sink.restart(body.facts.validator)
            elif body.start != sink.size or body.facts.validator != sink.validator:
                sink.restart("")
                raise Transient(f"the bytes from {body.start} on came, of another file or not asked for")
            bound = next((bound for bound in (size, most, total) if bound is not None), sys.maxsize)
            for piece in body.pieces:
                if sink.size + len(piece) > bound:
                    raise Unreachable(f"{url} sends more than the {bound} bytes that it may have")
                sink.write(piece)
                tries.check(sink.size)
        tries.check(sink.size)  # an end that was made by an interruption is none
        whole = total if size is None else size
        if whole is not None and sink.size < whole:
            raise Transient(f"the connection was closed after {sink.size} of {whole} bytes")


class _Tries:
    """One file's tries: how many, for how long, and what became of them."""

    def __init__(
        self, url: Url, access: Access, stopped: threading.Event, interrupt: Callable[[int], None]
    ) -> None:
        self._url, self._access, self._stopped, self._interrupt = url, access, stopped, interrupt
        self._interrupted = False
        self._began, self._furthest, self._in_vain = time.monotonic(), 0, 0
        self._reasons: Counter[str] = Counter()

    def until_done(self, attempt: Callable[[], T], sink: Sink) -> T:
        """Tries that brought new bytes are free; of those in vain, only so many in a row."""
        self._furthest = sink.size
        while True:
            try:
                with self._watched(sink):
                    return attempt()
            except Transient as error:
                self._in_vain = 0 if sink.size > self._furthest else self._in_vain + 1
                self._furthest = max(self._furthest, sink.size)
                self._reasons[str(error)] += 1
                self._wait(error)

    def check(self, received: int) -> None:
        """Raises Unreachable where the file has taken too long, and Stopped where nobody wants it any more."""
        if self._stopped.is_set():
            raise Stopped(f"{self._url} was on its way when the stream was closed")
        if self._interrupted or self._is_late(received):
            raise self._given_up(f"fewer than {LEAST_RATE} bytes a second came, for long")

    def once_more(self, why: str) -> Exception:
        """The error of an answer that is believed when it comes again."""
        return Altered(f"{self._url} {why}") if self._reasons[why] else Transient(why)

    @contextmanager
    def _watched(self, sink: Sink) -> Iterator[None]:
        """Interrupts this thread when the time is over or nobody wants the file any more.

        A time-out counts from byte to byte, so that a server which trickles its headers would hold it for ever.
        """
        thread, done = threading.get_ident(), threading.Event()

        def watch() -> None:
            while not done.wait(WATCH):
                if self._stopped.is_set() or self._is_late(sink.size):
                    self._interrupted = True
                    self._interrupt(thread)

        watcher = threading.Thread(target=watch, name="data-watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _is_late(self, received: int) -> bool:
        return time.monotonic() - self._began > self._access.seconds(max(received, self._furthest))

    def _wait(self, error: Transient) -> None:
        if self._interrupted:
            self.check(self._furthest)
        if self._in_vain > self._access.retries:
            raise self._given_up("") from error
        pause = min(LONGEST_PAUSE, self._access.pause * 2.0 ** max(0, self._in_vain - 1)) * random.uniform(0.5, 1)
        pause = max(pause, min(error.after, LONGEST_WISH))
        left = self._began + self._access.seconds(self._furthest) - time.monotonic()
        if pause > left:
            raise self._given_up(f"a pause of {pause:.0f} s was due") from error
        self._stopped.wait(pause)
        self.check(self._furthest)

    def _given_up(self, why: str) -> Unreachable:
        tried = ", ".join(f"{count} x {reason}" for reason, count in self._reasons.items())
        said = "; ".join(part for part in (tried, why) if part)
        return Unreachable(
            f"{self._url} cannot be had: {sum(self._reasons.values())} tries failed in "
            f"{time.monotonic() - self._began:.1f} s ({said}): look after the server, or give it more time with "
            f"data.timeout={self._access.timeout:g} and data.retries={self._access.retries}"
        )
