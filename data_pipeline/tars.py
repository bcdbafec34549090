"""Tars: other people's tar shards, in webdataset's layout, as a source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_pipeline.crew import Progress, cores, silent
from data_pipeline.decode import DEFAULT_LIMITS, IMAGE_EXTENSIONS, UndecodableImage, decode_json, decode_label
from data_pipeline.documents import Json
from data_pipeline.index import ABSENT, Member, ShardIndex, scan_tar
from data_pipeline.preparation import Check, Preparation
from data_pipeline.read import ShardReader
from data_pipeline.shards import expand
from data_pipeline.sources import UnusableImage, first_of

HEADERS = Preparation(check=Check.header)
KEPT: dict[str, Callable[[bytes], object]] = {
    "cls": decode_label,
    "json": decode_json,
}  # beside the image, if they are what they should be
KNOWN = (*IMAGE_EXTENSIONS, *KEPT)


class Tars:
    """The samples of tars, one after another: an image each, with its ``cls`` and ``json`` where it has them.

    The keys of strangers may be anything, so a sample's new key is its running number. Every tar is read once
    here, so that a cut one is refused before anything is made of it; where its members lie is kept in memory,
    about a hundred bytes a sample. A member of any other kind is refused by its name: code and pickles have no
    place in shards, and what is left out is left out knowingly, by ``drop``.

    Args:
        path: a folder of tars, or a brace or glob pattern of them.
        drop: extensions to leave out.
        progress: called with (tars read, tars in all).

    Raises:
        ValueError: no such tars, a damaged one, links, or members that are neither known nor dropped.
    """

    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        preparation: Preparation = HEADERS,
        drop: Sequence[str] = (),
        max_images: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self._path = path
        self._preparation = preparation
        self.resolution, self.channels = preparation.resolution, preparation.channels
        self._drop = sorted(set(drop))
        tars, self._indexes = _tars(path), list[ShardIndex]()
        with ThreadPoolExecutor(cores()) as threads:
            for index in threads.map(self._scanned, tars):
                self._indexes.append(index)
                progress(len(self._indexes), len(tars))
        self._starts = np.cumsum([0, *map(len, self._indexes)])
        if not self._starts[-1]:
            raise ValueError(f"path={path} holds no samples")
        self._count = first_of(int(self._starts[-1]), max_images)

    @property
    def description(self) -> str:
        return f"tar shards {self._path}"

    def __len__(self) -> int:
        return self._count

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Sample ``i`` of the tars in their order, under the key ``i``.

        Raises:
            UnusableImage: no image, more than one, or one that cannot be packed; names tar and key.
            ValueError: a ``cls`` or ``json`` member that is not what it should be; names the same.
        """
        assert 0 <= i < self._count, i
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        index = self._indexes[number]
        row = i - int(self._starts[number])
        sample: dict[str, str | bytes] = {"__key__": f"{i:08d}"}
        try:
            extension, data = self._image(index, row)
        except UndecodableImage as error:
            name = f"{index.shard}, sample {row}, key {index.keys[row]!r}"
            raise UnusableImage(name, str(error)) from error
        sample[extension] = data
        for kept, decode in KEPT.items():
            member = index.member(row, kept)
            if member is not None:
                sample[kept] = _checked(member, decode)
        return sample

    def preparation(self) -> dict[str, Json]:
        """The choices, and a digest of the tars' checksums in order."""
        digests = [index.sha256 for index in self._indexes]
        return {
            "source": "tar",
            "version": 1,
            "samples": self._count,
            **self._preparation.choices(),
            "drop": list(self._drop),
            "tars_sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        }

    def _scanned(self, tar: Path) -> ShardIndex:
        """Where the members lie that are packed."""
        index = scan_tar(tar, links=False)
        for extension, spans in index.spans.items():
            if extension not in (*KNOWN, *self._drop):
                key = index.keys[int(np.argmax(spans[:, 0] != ABSENT))]
                raise ValueError(
                    f"{tar}, key {key!r} has a member .{extension}, and only {', '.join(KNOWN)} are packed: "
                    f"drop=[{extension}] leaves it out"
                )
        packed = {extension: spans for extension, spans in index.spans.items() if extension not in self._drop}
        return replace(index, spans=packed)

    def _image(self, index: ShardIndex, row: int) -> tuple[str, bytes]:
        images = [member for name in IMAGE_EXTENSIONS if (member := index.member(row, name)) is not None]
        if len(images) != 1:
            raise UndecodableImage(
                f"expected one image ({', '.join(IMAGE_EXTENSIONS)}), got members "
                f"{', '.join(index.extensions(row)) or 'that are dropped'}"
            )
        try:
            DEFAULT_LIMITS.check_bytes(images[0].size)
            return self._preparation.image(_READER.read(images[0]))
        except UndecodableImage as error:
            raise UndecodableImage(f"{images[0].extension} at byte {images[0].offset}: {error}") from error


_READER = ShardReader()


def _checked(member: Member, decode: Callable[[bytes], object]) -> bytes:
    data = _READER.read(member)
    try:
        decode(data)
    except ValueError as error:
        raise ValueError(f"{member}: {error}: mend it, or leave it out with drop=[{member.extension}]") from error
    return data


def _tars(path: str) -> list[Path]:
    if Path(path).is_dir():
        found = sorted(Path(path).glob("*.tar"))
        if not found:
            raise ValueError(f"path={path} is a folder without *.tar shards")
        return found
    return expand(path, "path", "there is no folder or tar")
