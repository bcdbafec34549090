"""Tarball: a tar of samples as it is being written; its index and its checksum come with it."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_pipeline.index import ABSENT, ShardIndex

# A key is all that lies before the first dot; webdataset passes over names like __this__.
_KEY = re.compile(r"(?!__.*__$)[^./\0]+")


class Tarball:
    """Writes samples to an open file as webdataset's own writer does, but with no times and no names of users.

    So the same samples give the same bytes. ``close`` ends the archive; only then are the bytes a tar.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._length = 0
        self._rows: dict[str, int] = {}
        self._spans: dict[str, dict[int, tuple[int, int]]] = {}

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._rows)

    def add(self, sample: Mapping[str, str | bytes]) -> None:
        """One more sample.

        Raises:
            ValueError: its key is an earlier one's, or would not be read as a key.
        """
        key = str(sample["__key__"])
        if key in self._rows or not _KEY.fullmatch(key):
            raise ValueError(f"keys must be distinct and have no dots and no slashes, got {key!r}")
        row = self._rows[key] = len(self._rows)
        for extension in sorted(sample.keys() - {"__key__"}):
            data = sample[extension]
            assert isinstance(data, bytes), extension
            member = tarfile.TarInfo(f"{key}.{extension}")
            member.size, member.mode = len(data), 0o444
            self._write(member.tobuf())
            self._spans.setdefault(extension, {})[row] = (self._length, len(data))
            self._write(data + bytes(-len(data) % tarfile.BLOCKSIZE))

    def close(self) -> None:
        """Two empty blocks are the end, filled up to a whole record as ever since tapes."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self._length % tarfile.RECORDSIZE))

    def index(self, shard: Path) -> ShardIndex:
        """Where each sample lies, in the file under its name; what ``scan_tar`` would find."""
        columns = {}
        for extension, spans in sorted(self._spans.items()):
            columns[extension] = np.full((len(self), 2), (ABSENT, 0), np.int64)
            columns[extension][list(spans)] = list(spans.values())
        return ShardIndex(shard, tuple(self._rows), columns, self._length, self._digest.hexdigest())

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._length += len(data)
