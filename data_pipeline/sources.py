"""Sources: real images from somewhere, as samples that can be packed into shards."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from data_pipeline.decode import encode_png
from data_pipeline.documents import Json
from data_pipeline.order import Purpose, position_words
from data_pipeline.transforms import random_crop

SPLITS = ("train", "test")


class UnusableImage(ValueError):
    """An image of a source that cannot be packed; ``name`` is what the source calls it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


@runtime_checkable
class Source(Protocol):
    """A finite sequence of samples, each a pure function of its number, so that packing can stop and go on.

    A source can be pickled, to be used in other processes of ours: what it has open is opened again there.

    ``channels`` and ``resolution`` (pixels, or None where sizes vary) describe the images; ``class_names`` is
    empty where there are no classes. ``description`` is for people and may hold paths.
    """

    @property
    def description(self) -> str: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def channels(self) -> int: ...
    @property
    def resolution(self) -> int | None: ...

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Sample ``i`` as webdataset has it: ``__key__``, an image under png/jpg/webp, perhaps cls, json.

        Raises:
            UnusableImage: it has no image that can be packed.
        """
        ...

    def preparation(self) -> dict[str, Json]:
        """What was done to which images, with its version: equal preparations give equal samples."""
        ...


class Digits:
    """The 1,797 handwritten digits that scikit-learn ships, at their native 8x8 pixels, in gray.

    Every fifth digit of each class is held out as the test split. The set lies in runs by writer, so a cut at one
    place would test on other hands than it trained on; and the digits of a run follow a fixed pattern, so that
    every fifth digit of the whole set would hold out twice as many threes as ones.
    """

    channels = 1
    resolution = 8
    class_names = tuple("0123456789")

    def __init__(self, split: str = "train") -> None:
        from sklearn.datasets import load_digits

        self.split = known_split(split)
        digits = load_digits()
        within_class = np.empty_like(digits.target)
        for label in range(10):
            members = np.flatnonzero(digits.target == label)
            within_class[members] = np.arange(len(members))
        chosen = np.flatnonzero((within_class % 5 == 4) == (split == "test"))
        # Ink is stored as 0 … 16.
        self._images = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)
        self._labels = digits.target[chosen].tolist()
        self._numbers = chosen.tolist()

    @property
    def description(self) -> str:
        return f"scikit-learn digits, {self.split} split"

    def __len__(self) -> int:
        return len(self._labels)

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Digit ``i`` of the split as an 8x8 PNG with its class; the key is its number in the whole set."""
        return {
            "__key__": f"{self._numbers[i]:08d}",
            "png": encode_png(Image.fromarray(self._images[i])),
            "cls": str(self._labels[i]).encode(),
        }

    def preparation(self) -> dict[str, Json]:
        """The split is the only choice."""
        return {"source": "digits", "version": 1, "samples": len(self), "split": self.split}


class Photographs:
    """Random square crops of the two photographs that scikit-learn ships (427x640 pixels, colour).

    Even samples come from the first, odd ones from the second, and that is their class. Training crops lie in
    the left three quarters of a photograph and test crops in the right quarter, so that no pixel is in both.
    """

    channels = 3
    class_names = ("china", "flower")

    def __init__(self, count: int, resolution: int, split: str = "train", seed: int = 0) -> None:
        from sklearn.datasets import load_sample_image

        self.split = known_split(split)
        photographs = [load_sample_image(f"{name}.jpg").transpose(2, 0, 1) for name in self.class_names]
        border = photographs[0].shape[2] * 3 // 4
        columns = slice(0, border) if split == "train" else slice(border, None)
        self._regions = [photograph[:, :, columns] for photograph in photographs]
        largest = min(self._regions[0].shape[1:])
        if not 1 <= resolution <= largest:
            raise ValueError(
                f"resolution must be in [1, {largest}] for the {split} split of photographs, got {resolution}"
            )
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self._count = count
        self._seed = seed
        self.resolution = resolution

    @property
    def description(self) -> str:
        return f"scikit-learn photographs, {self.split} split"

    def __len__(self) -> int:
        return self._count

    def sample(self, i: int) -> dict[str, str | bytes]:
        """Crop ``i``, placed by (seed, i) alone, as a PNG with its class."""
        label = i % len(self._regions)
        word = int(position_words(self._seed, Purpose.PREPARATION, i, 1)[0, 0])
        crop = random_crop(self._regions[label], self.resolution, word)
        return {
            "__key__": f"{i:08d}",
            "png": encode_png(Image.fromarray(np.ascontiguousarray(crop.transpose(1, 2, 0)))),
            "cls": str(label).encode(),
        }

    def preparation(self) -> dict[str, Json]:
        """Everything that decides the crops."""
        return {
            "source": "photographs",
            "version": 1,
            "samples": self._count,
            "split": self.split,
            "resolution": self.resolution,
            "seed": self._seed,
        }


class Shuffled:
    """Another source's samples in an order that the seed decides, so that neighbouring shards hold all classes."""

    def __init__(self, source: Source, seed: int) -> None:
        self._source, self._seed = source, seed
        self.class_names, self.channels, self.resolution = source.class_names, source.channels, source.resolution
        words = position_words(seed, Purpose.PREPARATION, 0, len(source))[:, 1]
        self._order = np.argsort(words, kind="stable")

    @property
    def description(self) -> str:
        return f"{self._source.description}, shuffled"

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, i: int) -> dict[str, str | bytes]:
        """The sample that lies at place ``i``, under the key that it has in its source."""
        return self._source.sample(int(self._order[i]))

    def preparation(self) -> dict[str, Json]:
        """The source's, and the seed."""
        return {**self._source.preparation(), "shuffle": self._seed}


def first_of(count: int, max_images: int | None) -> int:
    """How many of ``count`` images are packed. Raises ValueError where that would be none."""
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}")
    return count if max_images is None else min(count, max_images)


def known_split(split: str) -> str:
    """The split. Raises ValueError where there is no such one."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split
