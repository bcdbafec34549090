"""Storage: where the shards of a set lie, and how their bytes come to this machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from data_pipeline.index import ShardIndex
from data_pipeline.manifest import MANIFEST, Manifest, ShardEntry
from data_pipeline.remote.url import Url

Place: TypeAlias = Path | Url


class Unreachable(OSError):
    """A shard, or its index, that cannot be had."""


class Ahead(ABC):
    """Brings shards near before they are needed."""

    @abstractmethod
    def advance(self, cursor: int) -> None:
        """The stream has come this far."""

    @abstractmethod
    def close(self) -> None:
        """Stop; who waits for a shard is told so."""


class Nothing(Ahead):
    """For shards that are near already."""

    def advance(self, cursor: int) -> None:
        pass

    def close(self) -> None:
        pass


class Storage(ABC):
    """Shards that lie in one way. Thread-safe.

    Attributes:
        shards: the place of each.
        entries: what each holds, as the manifest or its index says.
        manifest: where there is one.
        most_open: how many files a reader keeps open.
    """

    shards: tuple[Place, ...]
    entries: tuple[ShardEntry, ...]
    manifest: Manifest | None
    most_open: int = 64

    @abstractmethod
    def read_index(self, number: int) -> ShardIndex:
        """The index of a shard.

        Raises:
            ValueError: it is unreadable or disagrees with its shard or with the manifest.
            Unreachable: it cannot be had.
        """

    @abstractmethod
    def open(self, number: int) -> int:
        """A descriptor of the shard's bytes, for reading; the caller closes it.

        Raises:
            Unreachable: the shard cannot be had.
        """

    @abstractmethod
    def repair(self, number: int) -> bool:
        """Whether a shard that could not be read is worth another try, as a copy of it has been thrown away."""

    @abstractmethod
    def ahead(self, shards_ahead: Callable[[int], Iterable[int]], every: int, readers: int = 1) -> Ahead:
        """What brings shards near; which are needed from a cursor on differs ``every`` so many positions.

        readers: how many ranks of this node read other shards than each other.
        """


def entry_of(index: ShardIndex) -> ShardEntry:
    """What a manifest would say of the shard with this index."""
    return ShardEntry(index.shard.name, len(index), index.tar_bytes, index.sha256)


def check_entry(index: ShardIndex, entry: ShardEntry) -> None:
    """Raises ValueError where an index is not that of the shard that the manifest lists, or that was opened."""
    if (len(index), index.tar_bytes, index.sha256) != (entry.samples, entry.tar_bytes, entry.sha256):
        raise ValueError(
            f"index {index.shard.with_suffix('.json')} disagrees with its shard as {MANIFEST} describes it, or as "
            "it was opened: delete the index and it is built from the shard again, or copy the shard again"
        )
