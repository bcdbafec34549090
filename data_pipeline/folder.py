"""Folder: the images of a directory tree as a source."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from data_pipeline.decode import DEFAULT_LIMITS, IMAGE_EXTENSIONS, UndecodableImage
from data_pipeline.documents import Json
from data_pipeline.preparation import PASSED_THROUGH, Preparation
from data_pipeline.sources import UnusableImage, first_of


class Folder:
    """Every PNG, JPEG and WebP file below ``path``, sorted by its relative name; the first ``max_images`` of them.

    If the images lie in subfolders, the first folder of the relative name is the class.

    Raises:
        ValueError: no such folder, no images in it, or images both in subfolders and beside them.
    """

    def __init__(
        self, path: Path, preparation: Preparation = PASSED_THROUGH, max_images: int | None = None
    ) -> None:
        if not path.is_dir():
            raise ValueError(f"path must be a folder of images, and there is no folder {path}")
        self._path = path
        self._preparation = preparation
        self.resolution, self.channels = preparation.resolution, preparation.channels
        suffixes = {f".{extension}" for extension in IMAGE_EXTENSIONS}
        files = [file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file()]
        self._names = sorted(file.relative_to(path).as_posix() for file in files)
        if not self._names:
            raise ValueError(f"{path} holds no images: expected files in {', '.join(sorted(suffixes))}")
        self.class_names = _class_names(path, self._names)
        self._names = self._names[: first_of(len(self._names), max_images)]

    @property
    def description(self) -> str:
        return f"image folder {self._path}"

    def __len__(self) -> int:
        return len(self._names)

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Image ``i``; the key is its running number, and its original name is kept in ``json``.

        Raises:
            UnusableImage: the image cannot be decoded or is smaller than the resolution; names the file.
        """
        name = self._names[i]
        try:
            DEFAULT_LIMITS.check_bytes((self._path / name).stat().st_size)
            extension, data = self._preparation.image((self._path / name).read_bytes())
        except UndecodableImage as error:
            raise UnusableImage(_readable(name), str(error)) from error
        sample: dict[str, str | bytes] = {
            "__key__": f"{i:08d}",
            extension: data,
            "json": json.dumps({"name": name}, ensure_ascii=name != _readable(name)).encode(),
        }
        if self.class_names:
            sample["cls"] = str(self.class_names.index(_readable(name.split("/")[0]))).encode()
        return sample

    def preparation(self) -> dict[str, Json]:
        """The choices, and a digest of the files' names and lengths, so that a changed folder is noticed."""
        listing = "\n".join(f"{name}\t{(self._path / name).stat().st_size}" for name in self._names)
        return {
            "source": "folder",
            "version": 1,
            "samples": len(self),
            **self._preparation.choices(),
            "listing_sha256": hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest(),
        }


def _readable(name: str) -> str:
    """A file's name as text that can be written anywhere, with escapes for what in it is no UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def _class_names(path: Path, names: list[str]) -> tuple[str, ...]:
    beside = [name for name in names if "/" not in name]
    if not beside:
        return tuple(sorted({_readable(name.split("/")[0]) for name in names}))
    if len(beside) < len(names):
        raise ValueError(
            f"{path} holds images in subfolders, which name classes, and {len(beside)} beside them "
            f"({beside[0]}, …): put every image in a subfolder or none"
        )
    return ()
