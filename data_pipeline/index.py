"""ShardIndex: where each sample lies in one tar shard, so that any sample is one pread away."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from data_pipeline.documents import Document, document_bytes, write_document
from data_pipeline.remote.url import Url

KIND = "quasistatic shard index"
VERSION = 1
ABSENT = -1

# The grouping rule of webdataset.tariterators: the key is the name up to the first dot of its last component.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True)
class Member:
    """One file inside a shard: ``size`` bytes from byte ``offset`` on. As text, what error messages name."""

    shard: Path | Url
    key: str
    extension: str
    offset: int
    size: int

    def __str__(self) -> str:
        span = f"bytes {self.offset}:{self.offset + self.size}"
        return f"shard {self.shard}, key {self.key!r}, {self.extension} at {span}"


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of one shard, in columns.

    ``spans[extension][row]`` is (offset, size) in bytes, or offset -1 where the sample has no such member.
    Keys and extensions come from the tar and are only ever compared and printed: they never become paths.
    """

    shard: Path | Url
    keys: tuple[str, ...]
    spans: Mapping[str, Int64[np.ndarray, "samples 2"]]
    tar_bytes: int
    sha256: str

    def __len__(self) -> int:
        return len(self.keys)

    def extensions(self, row: int) -> list[str]:
        """The extensions that the sample of this row has."""
        return [extension for extension, spans in self.spans.items() if spans[row, 0] != ABSENT]

    def member(self, row: int, extension: str) -> Member | None:
        """Where the sample of this row keeps ``extension``, or None if it has none."""
        spans = self.spans.get(extension)
        if spans is None:
            return None
        offset, size = spans[row].tolist()
        if offset == ABSENT:
            return None
        return Member(self.shard, self.keys[row], extension, offset, size)

    def same_as(self, other: ShardIndex) -> bool:
        """Whether both describe the same bytes in the same way, wherever the shard lies."""
        return (
            (self.keys, self.tar_bytes, self.sha256) == (other.keys, other.tar_bytes, other.sha256)
            and self.spans.keys() == other.spans.keys()
            and all(np.array_equal(spans, other.spans[extension]) for extension, spans in self.spans.items())
        )

    def write(self) -> None:
        """Write the index beside its shard, atomically."""
        assert isinstance(self.shard, Path), self.shard
        write_document(index_path(self.shard), KIND, VERSION, self._fields())

    def to_bytes(self) -> bytes:
        """The index as ``write`` writes it."""
        return document_bytes(KIND, VERSION, self._fields())

    @classmethod
    def read(cls, shard: Path) -> ShardIndex:
        """Read the index that lies beside ``shard`` and check that it can be this shard's.

        Raises:
            ValueError: not an index of this version, or it disagrees with its shard.
        """
        index = cls._of(Document.read(index_path(shard), KIND, VERSION), shard)
        index._check_against_shard(shard.stat().st_size)
        return index

    @classmethod
    def parse(cls, url: Url, data: bytes) -> ShardIndex:
        """The index that these bytes are, of the shard at ``url``.

        Raises:
            ValueError: not an index of this version, or its members do not lie within its shard.
        """
        index = cls._of(Document.parse(url.with_suffix(".json"), data, KIND, VERSION), url)
        index._check_against_shard(index.tar_bytes)
        return index

    @classmethod
    def _of(cls, document: Document, shard: Path | Url) -> ShardIndex:
        keys = document.field("keys", list)
        columns = document.field("spans", dict)
        return cls(
            shard=shard,
            keys=tuple(map(str, keys)),
            spans={extension: _column(document.path, rows, len(keys)) for extension, rows in columns.items()},
            tar_bytes=document.count("bytes"),
            sha256=document.field("sha256", str),
        )

    def _fields(self) -> dict[str, Any]:
        spans = {extension: self.spans[extension].tolist() for extension in sorted(self.spans)}
        return {"bytes": self.tar_bytes, "sha256": self.sha256, "keys": list(self.keys), "spans": spans}

    def _check_against_shard(self, found: int) -> None:
        path = self.shard.with_suffix(".json")
        remedy = "copy the shard again, or delete the index and it is built from the shard as it is now"
        if found != self.tar_bytes:
            raise ValueError(
                f"index {path} disagrees with its shard: {self.shard} has {found} bytes, "
                f"the index was made of {self.tar_bytes}: {remedy}"
            )
        for extension, spans in self.spans.items():
            present = spans[spans[:, 0] != ABSENT]
            if (
                (present[:, 0] < tarfile.BLOCKSIZE) | (present[:, 1] < 0) | (present[:, 1] > found - present[:, 0])
            ).any():
                raise ValueError(f"index {path} disagrees with its shard: {extension} outside it: {remedy}")


def index_path(shard: Path) -> Path:
    """``shard-000000.tar`` is indexed by ``shard-000000.json`` beside it."""
    return shard.with_suffix(".json")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scan_tar(shard: Path, *, links: bool = True) -> ShardIndex:
    """Index an uncompressed tar of samples by reading it once: ``scan_open_tar`` of a file."""
    with shard.open("rb") as file:
        return scan_open_tar(file, shard, links=links)


def scan_open_tar(file: BufferedReader, shard: Path | Url, *, links: bool = True) -> ShardIndex:
    """Index an uncompressed tar of samples, which comes from ``shard``.

    Members are grouped into samples as webdataset does it: neighbours with the same key. Directories, links
    and ``__meta__`` members are passed over.

    Args:
        links: whether they may be there; where a copy is made, what is passed over would be lost.

    Raises:
        ValueError: truncated or damaged, compressed, or two members of one sample have the same extension.
    """
    keys: list[str] = []
    spans: dict[str, dict[int, tuple[int, int]]] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if not links and (member.islnk() or member.issym()):
                    raise ValueError(f"shard {shard}: member {member.name!r} is a link: pack it as a plain file")
                _add(member, shard, keys, spans)
            end = archive.offset
    except tarfile.TarError as error:
        raise ValueError(
            f"shard {shard} is truncated, damaged or not an uncompressed tar ({error}): copy or pack it again"
        ) from error
    _check_end(file, shard, end)
    columns = {extension: np.full((len(keys), 2), (ABSENT, 0), np.int64) for extension in sorted(spans)}
    for extension, rows in spans.items():
        columns[extension][list(rows)] = list(rows.values())
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ShardIndex(shard, tuple(keys), columns, file.tell(), digest)


def _add(
    member: tarfile.TarInfo, shard: Path | Url, keys: list[str], spans: dict[str, dict[int, tuple[int, int]]]
) -> None:
    match = _KEY_AND_EXTENSION.fullmatch(member.name)
    if not member.isreg() or match is None or _META.match(member.name):
        return
    if member.issparse():
        raise ValueError(f"shard {shard}: member {member.name!r} is sparse: pack it as a plain file")
    key, extension = match[1], match[2].lower()
    if not keys or keys[-1] != key:
        keys.append(key)
    rows = spans.setdefault(extension, {})
    if len(keys) - 1 in rows:
        raise ValueError(f"shard {shard}: key {key!r} has two members with the extension {extension!r}")
    rows[len(keys) - 1] = (member.offset_data, member.size)


def _check_end(file: BufferedReader, shard: Path | Url, end: int) -> None:
    # tarfile and webdataset both stop in silence at a damaged header, and at a cut between two members.
    file.seek(end)
    marker = file.read(2 * tarfile.BLOCKSIZE)
    if marker != bytes(2 * tarfile.BLOCKSIZE):
        raise ValueError(
            f"shard {shard} is truncated or damaged: at byte {end} there is neither a member nor the "
            "end-of-archive marker: copy or pack it again"
        )


def _column(path: Path | Url, rows: object, count: int) -> Int64[np.ndarray, "samples 2"]:
    try:
        column = np.asarray(rows, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: spans must be pairs of integers ({error})") from error
    if column.size == 0:
        column = column.reshape(0, 2)
    if column.shape != (count, 2):
        raise ValueError(f"{path}: spans must have shape ({count}, 2), one pair per key, got {column.shape}")
    return column
