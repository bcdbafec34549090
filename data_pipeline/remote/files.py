"""Files: shards of servers and their indexes, by way of the cache."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

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

        def fill(part: Part) -> None:
            try:
                data = self.document(shard.url.with_suffix(".json"), stopped)
            except Missing:
                data = self._scanned(shard, stopped).to_bytes()
            part.restart("")
            part.write(data)

        with open(self._cache.open(shard.index, fill, stopped), "rb") as file:
            file.seek(0)
            return ShardIndex.parse(shard.url, file.read())

    def drop_index(self, shard: RemoteShard) -> None:
        """Throw the index in the cache away."""
        self._cache.drop(shard.index)

    def drop_damaged(self, shard: RemoteShard) -> bool:
        """Throw the shard in the cache away if its checksum is wrong by now; True if it was or is gone."""
        return self._cache.drop(shard.tar)

    def _scanned(self, shard: RemoteShard, stopped: threading.Event) -> ShardIndex:
        log.info("indexing %s, which has no index", shard.url)
        with open(self.open(shard, stopped), "rb") as file:
            file.seek(0)
            return scan_open_tar(file, shard.url)

    def _from(self, url: Url) -> Transfer:
        kind = "http" if url.scheme == "https" else url.scheme
        with self._lock:
            if kind not in self._transfers:
                self._transfers[kind] = Transfer(_transport(kind, self._access), self._access)
            return self._transfers[kind]


def _transport(kind: str, access: Access) -> Transport:
    # Each of these takes a while to import, s3fs most of a second.
    if kind == "http":
        from data_pipeline.remote.http import Http

        return Http(access)
    from data_pipeline.remote.store import Store

    return Store(access)
