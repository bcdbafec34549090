"""LSUN from its original LMDB: keys in hexadecimal, each with the bytes of a WebP."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from data_pipeline.crew import Progress, silent
from data_pipeline.decode import UndecodableImage
from data_pipeline.documents import Json
from data_pipeline.preparation import Check, Preparation
from data_pipeline.sources import UnusableImage, first_of

FILE = "data.mdb"
STRIDE = 256  # every so many keys, one is kept in memory: 3 M keys of 40 bytes cost half a megabyte
TELL_EVERY = 10_000
HEADERS = Preparation(check=Check.header)

# What is no trouble as the name of a tar member and holds no dot, which would end webdataset's key.
_KEY = re.compile(rb"[0-9A-Za-z_-]{1,80}")

# A process may open a database once only.
_ENVIRONMENTS: WeakValueDictionary[Path, Any] = WeakValueDictionary()


class Lsun:
    """The images of one category, in the order of their keys; the first ``max_images`` of them.

    The keys are gone through once here, which touches none of the images; of the database nothing is written, not
    even its lock. Each sample has one member, the image under its LSUN key: a second would make the shards larger
    than the database.

    Args:
        progress: called with (keys read, keys in all) now and then.

    Raises:
        ValueError: no LMDB, a cut or damaged one, or keys that no shard can have.
    """

    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        path: Path,
        preparation: Preparation = HEADERS,
        max_images: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self._path = path
        self._preparation = preparation
        self.resolution, self.channels = preparation.resolution, preparation.channels
        self._environment: Any = None
        self._cursor: Any = None
        self._at = -1  # the number of the value that the cursor is at
        self._count = 0
        self._anchors: list[bytes] = []
        self._digest = self._go_through(max_images, progress)

    @property
    def description(self) -> str:
        return f"LSUN's LMDB {self._path}"

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_environment": None, "_cursor": None, "_at": -1}

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Image ``i``, under its own key; cheapest in ascending order.

        Raises:
            UnusableImage: the image cannot be decoded or is smaller than the resolution; names the key.
        """
        assert 0 <= i < self._count, i
        key, value = self._item(i)
        try:
            extension, data = self._preparation.image(value)
        except UndecodableImage as error:
            raise UnusableImage(f"key {key}", str(error)) from error
        return {"__key__": key, extension: data}

    def preparation(self) -> dict[str, Json]:
        """The choices, and a digest of the keys and of the lengths of their values."""
        return {
            "source": "lsun",
            "version": 1,
            "samples": self._count,
            **self._preparation.choices(),
            "listing_sha256": self._digest,
        }

    def _go_through(self, max_images: int | None, progress: Progress) -> str:
        digest = hashlib.sha256()
        with self._reading() as cursor:
            entries = self._environment.stat()["entries"]
            if not entries:
                raise ValueError(f"{self._path} holds no images")
            total = first_of(entries, max_images)
            # The value is a view of the map, of which only the length is asked: no page of it is read.
            for number, (key, value) in zip(range(total), cursor, strict=False):
                name = bytes(key)
                if not _KEY.fullmatch(name):
                    raise ValueError(
                        f"{self._path}: keys must be like LSUN's, up to 80 letters and digits, got {name[:100]!r}"
                    )
                digest.update(name + struct.pack("<Q", len(value)))
                if number % STRIDE == 0:
                    self._anchors.append(name)
                if number % TELL_EVERY == 0:
                    progress(number, total)
                self._count = number + 1
            progress(self._count, total)
        return digest.hexdigest()

    def _item(self, i: int) -> tuple[str, bytes]:
        with self._reading() as cursor:
            if i != self._at + 1 or i % STRIDE == 0:
                found = cursor.set_key(self._anchors[i // STRIDE])
                self._at = i - i % STRIDE
            else:
                found = cursor.next()
                self._at = i
            while found and self._at < i:
                found = cursor.next()
                self._at += 1
            if not found:
                raise ValueError(f"{self._path} has changed since it was opened: entry {i} is not there any more")
            key, value = cursor.item()
            return bytes(key).decode(), bytes(value)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """The cursor, opened where there is none."""
        import lmdb

        try:
            if self._cursor is None:
                self._environment = self._opened()
                self._cursor = self._environment.begin(buffers=True).cursor()
            yield self._cursor
        except lmdb.Error as error:
            raise ValueError(f"{self._path} is damaged or no LMDB ({error}): fetch it again") from error

    def _opened(self) -> Any:
        import lmdb

        file = self._path / FILE
        if not file.is_file():
            raise ValueError(
                f"path={self._path} must be the folder of an LMDB, such as church_outdoor_train_lmdb of its zip, "
                f"and has no {FILE}"
            )
        environment = _ENVIRONMENTS.get(file.resolve())
        if environment is None:
            # The kernel is not to read ahead: values lie in the order of arrival, not of their keys.
            environment = lmdb.open(str(self._path), readonly=True, lock=False, readahead=False, create=False)
            _ENVIRONMENTS[file.resolve()] = environment
        self._check_length(file, (environment.info()["last_pgno"] + 1) * environment.stat()["psize"])
        return environment

    def _check_length(self, file: Path, expected: int) -> None:
        found = file.stat().st_size
        if found < expected:  # to read beyond the end of a map would end the process
            raise ValueError(f"{file} is cut: it has {found} of {expected} bytes: fetch it again")
