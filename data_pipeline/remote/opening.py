"""Opening shards by their address: a manifest, or as many indexes as there are shards."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor

from braceexpand import braceexpand

from data_pipeline.index import ShardIndex
from data_pipeline.manifest import MANIFEST, Manifest, ShardEntry
from data_pipeline.remote.access import Access
from data_pipeline.remote.files import Files, RemoteShard
from data_pipeline.remote.shards import RemoteShards
from data_pipeline.remote.transfer import Missing
from data_pipeline.remote.url import Url
from data_pipeline.storage import entry_of

log = logging.getLogger(__name__)

INDEXES_AT_ONCE = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")


def open_remote(spec: str, access: Access) -> RemoteShards:
    """Open the folder of a manifest, a manifest, or the tars that a brace pattern names.

    Of tars, the index beside each is read, many at once; a tar without one is downloaded and indexed.

    Raises:
        ValueError: no address that can be read, no manifest or index.
        Unreachable: a server does not give what must be read here.
    """
    try:
        urls = [Url.parse(text) for text in braceexpand(spec)]
    except ValueError as error:
        raise ValueError(f"data.shards={spec}: {error}") from error
    if len(urls) > 1 and not all(url.name.endswith(".tar") for url in urls):
        raise ValueError(f"data.shards={spec}: a pattern must name tars, and a manifest stands alone")
    files, closed = Files(access), threading.Event()
    if len(urls) == 1 and not urls[0].name.endswith(".tar"):
        return _of_manifest(urls[0], access, files, closed)
    with ThreadPoolExecutor(INDEXES_AT_ONCE, "index") as threads:
        found = list(threads.map(lambda url: _of_shard(url, files, closed), urls))
    return RemoteShards(
        files, [each for each, _ in found], [entry for _, entry in found], None, access.cache_bytes
    )


def _of_manifest(url: Url, access: Access, files: Files, closed: threading.Event) -> RemoteShards:
    url = url if url.name.endswith(".json") else url.child(MANIFEST)
    try:
        manifest = Manifest.parse(url, files.document(url, closed))
    except Missing as error:
        raise Missing(
            f"{error}. Without a manifest, name the shards: {url.sibling('shard-')}{{000000..000099}}.tar"
        ) from error
    remote = [_known(url.sibling(entry.name), entry) for entry in manifest.shards]
    return RemoteShards(files, remote, manifest.shards, manifest, access.cache_bytes)


def _of_shard(url: Url, files: Files, closed: threading.Event) -> tuple[RemoteShard, ShardEntry]:
    try:
        index = ShardIndex.parse(url, files.document(url.with_suffix(".json"), closed))
        entry = entry_of(index)
        return _known(url, entry), entry
    except Missing:
        facts = files.facts(url, closed)
    key = hashlib.sha256(f"{url}\n{facts.total}\n{facts.validator}".encode()).hexdigest()
    entry = entry_of(files.index(RemoteShard(url, key, facts.total, None), closed))
    return RemoteShard(url, key, entry.tar_bytes, entry.sha256), entry


def _known(url: Url, entry: ShardEntry) -> RemoteShard:
    """A shard that is kept by its checksum."""
    if not _SHA256.fullmatch(entry.sha256) or entry.tar_bytes < 0:
        raise ValueError(
            f"{url}: its manifest or index must give its sha256 in 64 hexadecimal digits and its bytes, got "
            f"{entry.sha256!r:.80} and {entry.tar_bytes}"
        )
    return RemoteShard(url, entry.sha256, entry.tar_bytes, entry.sha256)
