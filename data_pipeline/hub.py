"""Hub: an image set of Hugging Face's `datasets`, if that package is installed."""

from __future__ import annotations

import hashlib
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from data_pipeline.decode import UndecodableImage
from data_pipeline.documents import Json
from data_pipeline.preparation import Check, Preparation
from data_pipeline.sources import UnusableImage, first_of

HEADERS = Preparation(check=Check.header)
LEAST_VERSION = 4  # earlier ones run the scripts that sets bring with them
_SPLIT = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)  # a split becomes a folder
UNKNOWN = (None, -1)  # how these sets mark an image whose class is not told


class Hub:
    """One split: the images of its image column as they are, and their classes where it has a column of them.

    The set must hold the images themselves: a row that names a file instead could name any file of this machine.

    Args:
        path: a folder that `save_to_disk` wrote, or what `load_dataset` takes: a folder of Parquet files, or the
            name of a set, which is then downloaded.
        split: of a set that has several.

    Raises:
        ValueError: the package is not installed, or the set has not exactly one column of images.
    """

    def __init__(
        self, path: str, split: str = "", preparation: Preparation = HEADERS, max_images: int | None = None
    ) -> None:
        self._path, self._split = path, split
        self._preparation = preparation
        self.resolution, self.channels = preparation.resolution, preparation.channels
        features = self._whole().features
        images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
        classes = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
        if len(images) != 1:
            raise ValueError(f"{path} must have one column of images, and has {', '.join(images) or 'none'}")
        if len(classes) > 1 and "label" not in classes:
            raise ValueError(f"{path} must have one column of classes, or one named label: {', '.join(classes)}")
        self._image = images[0]
        self._label = "label" if "label" in classes else next(iter(classes), "")
        self.class_names: tuple[str, ...] = tuple(features[self._label].names) if self._label else ()
        self._rows: Any = None
        self._count = first_of(len(self._opened()), max_images)
        if not self._count:
            raise ValueError(f"{path} holds no images{f' in its split {split}' if split else ''}")

    @property
    def description(self) -> str:
        return f"Hugging Face data set {self._path}{f', {self._split} split' if self._split else ''}"

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_rows": None}

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Row ``i``; the key is its number.

        Raises:
            UnusableImage: the image is not in the set, cannot be decoded or is smaller than the resolution.
        """
        assert 0 <= i < self._count, i
        row = self._opened()[i]
        data = (row[self._image] or {}).get("bytes")
        try:
            if data is None:
                raise UndecodableImage("the set does not hold this image, only its name: take source=folder")
            extension, data = self._preparation.image(data)
        except UndecodableImage as error:
            raise UnusableImage(f"row {i}", str(error)) from error
        sample: dict[str, str | bytes] = {"__key__": f"{i:08d}", extension: data}
        if self._label and row[self._label] not in UNKNOWN:
            sample["cls"] = str(row[self._label]).encode()
        return sample

    def preparation(self) -> dict[str, Json]:
        """The choices, and a digest of the images' lengths."""
        compute = import_module("pyarrow.compute")
        column = self._opened().data.column(self._image)
        lengths = compute.binary_length(compute.struct_field(column, "bytes")).slice(0, self._count)
        return {
            "source": "huggingface",
            "version": 1,
            "samples": self._count,
            "split": self._split,
            **self._preparation.choices(),
            "listing_sha256": hashlib.sha256(repr(lengths.to_pylist()).encode()).hexdigest(),
        }

    def _opened(self) -> Any:
        """The columns that are packed, with the images as bytes."""
        if self._rows is None:
            columns = [self._image, *([self._label] if self._label else [])]
            undecoded = _package().Image(decode=False)
            self._rows = self._whole().select_columns(columns).cast_column(self._image, undecoded)
        return self._rows

    def _whole(self) -> Any:
        found = _loaded(self._path)
        return found[self._split] if self._split else found


def splits(path: str) -> list[str]:
    """The names of a set's splits; none where it has no such division.

    Raises:
        ValueError: a name that could be no folder's.
    """
    found = _loaded(path)
    names = list(found) if isinstance(found, dict) else []
    for name in names:
        if not _SPLIT.fullmatch(name):
            raise ValueError(
                f"{path}: a split must be named in letters, digits, dots and dashes, got {name!r:.100}"
            )
    return names


def _loaded(path: str) -> Any:
    saved = any((Path(path) / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return _package().load_from_disk(path) if saved else _package().load_dataset(path)


def _package() -> Any:
    try:
        package = import_module("datasets")
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise ValueError("source=huggingface needs the package datasets: `pip install datasets`") from error
    if int(package.__version__.split(".")[0]) < LEAST_VERSION:
        raise ValueError(
            f"source=huggingface needs datasets {LEAST_VERSION} or later, as earlier ones run code that "
            f"comes with a set, and {package.__version__} is installed: `pip install --upgrade datasets`"
        )
    return package
