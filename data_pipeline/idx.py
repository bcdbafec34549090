"""MNIST from its original files: images and labels in the IDX format, gzipped as distributed or not."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image

from data_pipeline.decode import encode_png
from data_pipeline.documents import Json
from data_pipeline.sources import known_split

PREFIXES = {"train": "train", "test": "t10k"}
UNSIGNED_BYTE = 0x08
CHUNK = 1 << 20


class Idx:
    """An IDX file of unsigned bytes: an array whose entries are read one at a time.

    shape: of the whole array. sha256: of the file's content, unpacked; it is read once to its end here, so that a
    damaged file is refused before anything is made of it.

    Raises:
        ValueError: not an IDX file of bytes in so many dimensions, or cut, too long or damaged; names the file.
    """

    def __init__(self, path: Path, dimensions: int) -> None:
        self.path = path
        self._file = self._opened()
        magic = self._bytes(0, 4)
        if magic != bytes((0, 0, UNSIGNED_BYTE, dimensions)):
            raise ValueError(
                f"{path} must be an IDX file of bytes in {dimensions} dimensions, which begins with "
                f"0000{UNSIGNED_BYTE:02x}{dimensions:02x}, and begins with {magic.hex() or 'nothing'}"
            )
        sizes = np.frombuffer(self._bytes(4, 4 * dimensions), ">u4")
        self.shape = tuple(int(size) for size in sizes)
        self._start = 4 + 4 * dimensions
        self.sha256 = self._digest()

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._file = self._opened()

    def entry(self, i: int) -> np.ndarray:
        """Entry ``i`` of the first dimension; cheapest in ascending order."""
        size = math.prod(self.shape[1:])
        return np.frombuffer(self._bytes(self._start + i * size, size), np.uint8).reshape(self.shape[1:])

    def _opened(self) -> BinaryIO:
        # Kept open: what is gzipped could otherwise only be read from its beginning, again for every entry.
        return cast(BinaryIO, gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb"))

    def _bytes(self, start: int, count: int) -> bytes:
        try:
            self._file.seek(start)
            return self._file.read(count)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{self.path} is cut or damaged ({error}): fetch it again") from error

    def _digest(self) -> str:
        expected, found, digest = math.prod(self.shape), 0, hashlib.sha256()
        while found <= expected and (chunk := self._bytes(self._start + found, CHUNK)):
            digest.update(chunk)
            found += len(chunk)
        if found != expected:
            count = f"more than {expected}" if found > expected else str(found)
            raise ValueError(
                f"{self.path} must hold {expected} bytes of data, as its header's {self.shape} says, and holds "
                f"{count}: fetch it again"
            )
        return digest.hexdigest()


class Mnist:
    """A split of MNIST, or of another set in its four files, with its classes 0 to 9.

    Raises:
        ValueError: a file that is missing or no IDX file of its kind, images that are not square, labels that are
            not as many as the images or no digits; names the file.
    """

    channels = 1
    class_names = tuple("0123456789")

    def __init__(self, path: Path, split: str = "train") -> None:
        self.split = known_split(split)
        self._path = path
        self._images = Idx(_find(path, f"{PREFIXES[split]}-images", 3), 3)
        labels = Idx(_find(path, f"{PREFIXES[split]}-labels", 1), 1)
        count, height, width = self._images.shape
        if not count or height != width:
            raise ValueError(
                f"{self._images.path} must hold square images, got {count} of {width}x{height} pixels"
            )
        if len(labels) != count:
            raise ValueError(f"{labels.path} must hold a label for each of {count} images, got {len(labels)}")
        self._labels = [int(labels.entry(i)) for i in range(count)]
        if max(self._labels) > 9:
            raise ValueError(f"{labels.path} must hold labels from 0 to 9, got {max(self._labels)}")
        self.resolution = width
        self._labels_sha256 = labels.sha256

    @property
    def description(self) -> str:
        return f"MNIST's files in {self._path}, {self.split} split"

    def __len__(self) -> int:
        return len(self._labels)

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Image ``i`` of the split, as a PNG with its class."""
        return {
            "__key__": f"{i:08d}",
            "png": encode_png(Image.fromarray(self._images.entry(i))),
            "cls": str(self._labels[i]).encode(),
        }

    def preparation(self) -> dict[str, Json]:
        """The split, and digests of what its files hold."""
        return {
            "source": "mnist",
            "version": 1,
            "samples": len(self),
            "split": self.split,
            "images_sha256": self._images.sha256,
            "labels_sha256": self._labels_sha256,
        }


def _find(path: Path, name: str, dimensions: int) -> Path:
    """The file, under the names that it is distributed by."""
    names = [f"{name}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for candidate in names:
        if (path / candidate).is_file():
            return path / candidate
    raise ValueError(
        f"path={path} must be the folder of MNIST's original files, and has no {names[0]} or {names[1]}"
    )
