"""CIFAR-10 from its original files: the binary version, as a folder or the archive that it is distributed in."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from data_pipeline.decode import encode_png
from data_pipeline.documents import Json
from data_pipeline.sources import known_split

FOLDER = "cifar-10-batches-bin"
BATCHES = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}
PICKLED = {"data_batch_1", "test_batch", "batches.meta"}  # files of the python version
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE  # a label, then the red, the green and the blue plane
MOST = 10_000  # records of a batch


class Cifar10:
    """A split of CIFAR-10, with its classes. Of the images, one batch at a time is in memory.

    Each batch is read once here, so that a damaged one is refused before anything is made of it.

    Raises:
        ValueError: a batch is missing, of another size or has labels that are no classes; names the file. Of the
            python version, in which batches are pickles: those are never opened, as one could run any code.
    """

    channels, resolution = 3, SIDE
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, path: Path, split: str = "train") -> None:
        self.split, self._path = known_split(split), path
        self._names = BATCHES[split]
        counts, digests = {}, {}
        for name, data in self._read(self._names):
            counts[name], digests[name] = _checked(f"{path}: {name}", data), hashlib.sha256(data).hexdigest()
        self._starts = np.cumsum([0, *(counts[name] for name in self._names)])
        self._digest = hashlib.sha256("\n".join(digests[name] for name in self._names).encode()).hexdigest()
        self._open = ("", b"")

    @property
    def description(self) -> str:
        return f"CIFAR-10's binary files in {self._path}, {self.split} split"

    def __len__(self) -> int:
        return int(self._starts[-1])

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Image ``i`` of the split, batch after batch, as a PNG with its class."""
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        if self._open[0] != self._names[number]:
            self._open = next(iter(self._read((self._names[number],))))
        start = (i - int(self._starts[number])) * RECORD
        record = np.frombuffer(self._open[1], np.uint8, RECORD, start)
        planes = record[1:].reshape(3, SIDE, SIDE)
        return {
            "__key__": f"{i:08d}",
            "png": encode_png(Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))),
            "cls": str(int(record[0])).encode(),
        }

    def preparation(self) -> dict[str, Json]:
        """The split, and a digest of what its batches hold."""
        return {
            "source": "cifar10",
            "version": 1,
            "samples": len(self),
            "split": self.split,
            "batches_sha256": self._digest,
        }

    def _read(self, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
        """These batches, each with its name, in the order in which they lie there."""
        if self._path.is_dir():
            yield from self._of_folder(names)
        elif self._path.is_file():
            yield from self._of_archive(names)
        else:
            raise ValueError(f"path must be CIFAR-10's folder or archive, and there is no {self._path}")

    def _of_folder(self, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
        inner = self._path / FOLDER
        folder = inner if inner.is_dir() else self._path
        present = {file.name for file in folder.iterdir()} | {
            file.name for file in self._path.glob("cifar-10-batches-py/*")
        }
        self._require(names, present)
        for name in names:
            _check_size(f"{folder / name}", (folder / name).stat().st_size)
            yield name, (folder / name).read_bytes()

    def _of_archive(self, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
        present = set()
        try:
            with tarfile.open(self._path) as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name
                    file = archive.extractfile(member) if member.isreg() else None
                    present |= {name} if file else set()
                    if file and name in names:
                        _check_size(f"{self._path}: {name}", member.size)
                        yield name, file.read()
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            raise ValueError(
                f"{self._path} is no tar archive, cut or damaged ({error}): fetch it again"
            ) from error
        self._require(names, present)

    def _require(self, names: tuple[str, ...], present: set[str]) -> None:
        missing = [name for name in names if name not in present]
        if missing and present & PICKLED:
            raise ValueError(
                f"{self._path} is the python version of CIFAR-10, whose batches are pickles; those can run any "
                "code and are never opened here: fetch the binary version, cifar-10-binary.tar.gz"
            )
        if missing:
            raise ValueError(
                f"{self._path} must hold the binary version of CIFAR-10 (cifar-10-binary.tar.gz, or {FOLDER}), "
                f"and has no {missing[0]}"
            )


def _check_size(what: str, size: int) -> None:
    if size % RECORD or not 0 < size <= MOST * RECORD:
        raise ValueError(
            f"{what} must hold 1 to {MOST} records of {RECORD} bytes, a label and a {SIDE}x{SIDE} image, and has "
            f"{size} bytes: fetch it again"
        )


def _checked(what: str, data: bytes) -> int:
    """How many records there are, all of them with a label that is a class."""
    labels = np.frombuffer(data, np.uint8)[::RECORD]
    if labels.max() > 9:
        row = int(labels.argmax())
        raise ValueError(f"{what} must hold labels from 0 to 9, got {labels[row]} in record {row}")
    return len(labels)
