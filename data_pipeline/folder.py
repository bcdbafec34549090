"""Folder: the images of a directory tree as a source."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from data_pipeline.decode import IMAGE_EXTENSIONS, UndecodableImage, encode_png, open_image
from data_pipeline.documents import Json
from data_pipeline.transforms import center_crop_square, resize_lanczos


class Folder:
    """Every PNG, JPEG and WebP file below ``path``, sorted by its relative name.

    Without ``resolution`` the bytes of each file pass through untouched, decoded once to see that they can
    be. With it, images are prepared as StyleGAN's tool does for LSUN: the central square of the shorter side,
    resized by Lanczos, as PNG. If the images lie in subfolders, the first folder of the relative name is the
    class.

    Raises:
        ValueError: no such folder, no images in it, or images both in subfolders and beside them.
    """

    def __init__(self, path: Path, resolution: int | None = None, channels: int = 3) -> None:
        if not path.is_dir():
            raise ValueError(f"path must be a folder of images, and there is no folder {path}")
        if resolution is not None and resolution < 1:
            raise ValueError(f"resolution must be at least 1, got {resolution}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (gray) or 3 (colour), got {channels}")
        self._path = path
        self.resolution = resolution
        self.channels = channels
        suffixes = {f".{extension}" for extension in IMAGE_EXTENSIONS}
        files = [file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file()]
        self._names = sorted(file.relative_to(path).as_posix() for file in files)
        if not self._names:
            raise ValueError(f"{path} holds no images: expected files in {', '.join(sorted(suffixes))}")
        self.class_names = _class_names(path, self._names)

    @property
    def description(self) -> str:
        return f"image folder {self._path}"

    def __len__(self) -> int:
        return len(self._names)

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Image ``i``; the key is its running number, and its original name is kept in ``json``.

        Raises:
            ValueError: the image cannot be decoded or is smaller than the resolution; names the file.
        """
        name = self._names[i]
        extension, data = self._image(self._path / name)
        sample: dict[str, str | bytes] = {
            "__key__": f"{i:08d}",
            extension: data,
            "json": json.dumps({"name": name}, ensure_ascii=False).encode(),
        }
        if self.class_names:
            sample["cls"] = str(self.class_names.index(name.split("/")[0])).encode()
        return sample

    def preparation(self) -> dict[str, Json]:
        """The choices, and a digest of the files' names and lengths, so that a changed folder is noticed."""
        listing = "\n".join(f"{name}\t{(self._path / name).stat().st_size}" for name in self._names)
        return {
            "source": "folder",
            "version": 1,
            "samples": len(self),
            "resolution": self.resolution,
            "channels": self.channels,
            "listing_sha256": hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest(),
        }

    def _image(self, file: Path) -> tuple[str, bytes]:
        data = file.read_bytes()
        try:
            image = open_image(data, channels=self.channels)
        except UndecodableImage as error:
            raise ValueError(f"{file}: {error}: repair the file or take it out of the folder") from error
        if self.resolution is None:
            extension = file.suffix.lower().removeprefix(".")
            return ("jpg" if extension == "jpeg" else extension), data
        if min(image.size) < self.resolution:
            raise ValueError(
                f"{file}: the image has {image.width}x{image.height} pixels, smaller than "
                f"resolution={self.resolution}: lower the resolution or take it out of the folder"
            )
        return "png", encode_png(resize_lanczos(center_crop_square(image), self.resolution))


def _class_names(path: Path, names: list[str]) -> tuple[str, ...]:
    beside = [name for name in names if "/" not in name]
    if not beside:
        return tuple(sorted({name.split("/")[0] for name in names}))
    if len(beside) < len(names):
        raise ValueError(
            f"{path} holds images in subfolders, which name classes, and {len(beside)} beside them "
            f"({beside[0]}, …): put every image in a subfolder or none"
        )
    return ()
