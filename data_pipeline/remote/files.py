"""Files: shards of servers and their indexes, by way of the cache."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader

from data_pipeline.index import ShardIndex, scan_open_tar
from data_pipeline.remote.access import Access
from data_pipeline.remote.cache import Cache, Wanted
from data_pipeline.remote.part import Part
from data_pipeline.remote.transfer import Facts, Missing, Transfer, Transport
from data_pipeline.remote.url import Url

log = logging.getLogger(__name__)

MOST_DOCUMENT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class RemoteShard:
    """A shard on a server. key: what its files in the cache are called; size, sha256: None if not known."""

    url: Url
    key: str
    size: int | None
    sha256: str | None

    @property
    def tar(self) -> Wanted:
        return Wanted(f"{self.key}.tar", str(self.url), self.size, self.sha256)

    @property
    def index(self) -> Wanted:
        return Wanted(f"{self.key}.json", str(self.url.with_suffix(".json")))


class Files:
    """Fetches what is not in the cache. Thread-safe. Everything here raises ``Unreachable``, and ``Stopped``
    once the event that it is given is set.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._cache = Cache(access)
        self._transfers: dict[str, Transfer] = {}
        self._lock = threading.Lock()

    def facts(self, url: Url, stopped: threading.Event) -> Facts:
        """What the server says of a file."""
        return self._from(url).facts(url, stopped)

    def document(self, url: Url, stopped: threading.Event) -> bytes:
        """A manifest or an index from the server, now."""
        return self._from(url).read(url, MOST_DOCUMENT_BYTES, stopped)

    def open(self, shard: RemoteShard, stopped: threading.Event) -> int:
        """A descriptor of the shard's bytes, whole and checked; the caller closes it."""

        def fill(part: Part) -> None:
            self._from(shard.url).download(shard.url, part, shard.size, stopped)

        return self._cache.open(shard.tar, fill, stopped)

    def index(self, shard: RemoteShard, stopped: threading.Event) -> ShardIndex:
        """The shard's index: the server's, or one that is made of the shard and kept in the cache.

        Raises:
            ValueError: the server's is no index, or the shard is no tar.
        """

        try:
            data = self._kept(shard, lambda: self._published(shard, stopped), stopped)
        except _Unpublished:
            # The shard is here before the index is claimed: who waits for the index sees nothing grow.
            with open(self.open(shard, stopped), "rb") as tar:
                data = self._kept(shard, lambda: _scanned(shard, tar), stopped)
        return ShardIndex.parse(shard.url, data)

    def refresh_index(self, shard: RemoteShard, stopped: threading.Event) -> bool:
        """Throw the index in the cache away if the server's, or that of the shard itself, is another by now."""
        try:
            new = self._published(shard, stopped)
        except _Unpublished:
            with open(self.open(shard, stopped), "rb") as tar:
                new = _scanned(shard, tar)
        differs = self._kept(shard, lambda: new, stopped) != new
        if differs:
            self.drop_index(shard)
        return differs

    def drop_index(self, shard: RemoteShard) -> None:
        """Throw the index in the cache away."""
        self._cache.drop(shard.index)

    def drop_damaged(self, shard: RemoteShard) -> bool:
        """Throw the shard in the cache away if its checksum is wrong by now; True if it was or is gone."""
        return self._cache.drop(shard.tar)

    def _kept(self, shard: RemoteShard, make: Callable[[], bytes], stopped: threading.Event) -> bytes:
        """The bytes of the index in the cache, which are made if there are none."""

        def fill(part: Part) -> None:
            data = make()
            part.restart("")
            part.write(data)

        with open(self._cache.open(shard.index, fill, stopped), "rb") as file:
            file.seek(0)
            return file.read()

    def _published(self, shard: RemoteShard, stopped: threading.Event) -> bytes:
        try:
            return self.document(shard.url.with_suffix(".json"), stopped)
        except Missing as error:
            raise _Unpublished(str(error)) from error

    def _from(self, url: Url) -> Transfer:
        kind = "http" if url.scheme == "https" else url.scheme
        with self._lock:
            if kind not in self._transfers:
                self._transfers[kind] = Transfer(_transport(kind, self._access), self._access)
            return self._transfers[kind]


class _Unpublished(Exception):
    """The server has no index beside the shard. Not ``Unreachable``, which those who wait would share."""


def _scanned(shard: RemoteShard, tar: BufferedReader) -> bytes:
    log.info("indexing %s, which has no index", shard.url)
    tar.seek(0)
    return scan_open_tar(tar, shard.url).to_bytes()


def _transport(kind: str, access: Access) -> Transport:
    # Each of these takes a while to import, s3fs most of a second.
    if kind == "http":
        from data_pipeline.remote.http import Http

        return Http(access)
    from data_pipeline.remote.store import Store

    return Store(access)
