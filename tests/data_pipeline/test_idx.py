"""MNIST's original files: written byte by byte as their format says, read back, and refused where they are bad."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.decode import decode_image
from data_pipeline.idx import Idx, Mnist
from data_pipeline.shards import ShardSet
from data_pipeline.write import write_shards


def idx(array: np.ndarray, kind: int = 0x08) -> bytes:
    """As LeCun's page on MNIST has it: two zeros, the type, the dimensions, their sizes big-endian, the data."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, kind, array.ndim)) + sizes + array.tobytes()


IMAGES = {
    "train": np.random.default_rng(0).integers(0, 256, (25, 28, 28), np.uint8),
    "t10k": np.random.default_rng(1).integers(0, 256, (7, 28, 28), np.uint8),
}
LABELS = {"train": np.arange(25, dtype=np.uint8) % 10, "t10k": np.arange(7, dtype=np.uint8)}


def write(folder: Path, packed: bool = True, mark: str = "-") -> Path:
    folder.mkdir(exist_ok=True)
    for prefix in IMAGES:
        for name, array in ((f"images{mark}idx3", IMAGES[prefix]), (f"labels{mark}idx1", LABELS[prefix])):
            data = idx(array)
            path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize(("packed", "mark"), [(True, "-"), (False, "-"), (False, ".")])
def test_both_splits_are_read_with_their_classes(tmp_path: Path, packed: bool, mark: str) -> None:
    folder = write(tmp_path, packed, mark)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        source = Mnist(folder, split)
        assert (len(source), source.resolution, source.channels) == (len(IMAGES[prefix]), 28, 1)
        for i in (*range(len(source)), 2):  # in order, and once back
            sample = source.sample(i)
            assert isinstance(sample["png"], bytes)
            np.testing.assert_array_equal(decode_image(sample["png"], channels=1)[0], IMAGES[prefix][i])
            assert sample["cls"] == str(LABELS[prefix][i]).encode()


def test_gzipped_or_not_they_are_the_same_preparation_and_other_images_are_not(tmp_path: Path) -> None:
    packed, plain = Mnist(write(tmp_path / "a")), Mnist(write(tmp_path / "b", packed=False))
    assert packed.preparation() == plain.preparation()
    (tmp_path / "b" / "train-images-idx3-ubyte").write_bytes(idx(IMAGES["train"] ^ 1))
    assert Mnist(tmp_path / "b").preparation() != packed.preparation()


def test_they_are_packed_into_shards(tmp_path: Path) -> None:
    write_shards(Mnist(write(tmp_path / "files")), tmp_path / "shards", samples_per_shard=10)
    shards = ShardSet.open(str(tmp_path / "shards"))
    assert (shards.size, shards.manifest.class_names) == (25, tuple("0123456789"))


TRAIN = "train-images-idx3-ubyte"
BAD = {
    "cut": (TRAIN, idx(IMAGES["train"])[:-1], rf"{TRAIN} must hold 19600 bytes of data.* holds 19599"),
    "too long": (TRAIN, idx(IMAGES["train"]) + b"0", rf"{TRAIN} must hold 19600 bytes .* holds more than 19600"),
    "of floats": (TRAIN, idx(IMAGES["train"], 0x0D), rf"{TRAIN} must be an IDX file .* begins with 00000d03"),
    "labels": (
        TRAIN,
        idx(LABELS["train"]),
        rf"{TRAIN} must be .* 3 dimensions.*00000803, and begins with 00000801",
    ),
    "empty": (TRAIN, b"", rf"{TRAIN} must be an IDX file .* begins with nothing"),
    "oblong": (TRAIN, idx(IMAGES["train"][:, :20]), rf"{TRAIN} must hold square images, got 25 of 28x20"),
    "few labels": ("train-labels-idx1-ubyte", idx(LABELS["train"][:9]), "a label for each of 25 images, got 9"),
    "no digits": ("train-labels-idx1-ubyte", idx(LABELS["train"] + 5), "labels from 0 to 9, got 14"),
}


@pytest.mark.parametrize(("name", "data", "said"), BAD.values(), ids=BAD)
def test_a_bad_file_is_named_with_what_was_expected(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    write(tmp_path, packed=False)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=said):
        Mnist(tmp_path)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-200],
    "not gzip": lambda data: b"no" + data[2:],
    "altered": lambda data: data[:5000] + bytes(50) + data[5050:],
    "a wrong checksum": lambda data: data[:-8] + bytes(4) + data[-4:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_gzip_is_refused_when_it_is_opened(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path) / f"{TRAIN}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{TRAIN}\.gz is cut or damaged .*: fetch it again"):
        Idx(path, 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (write(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    Mnist(tmp_path)
    with pytest.raises(ValueError, match=r"has no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz"):
        Mnist(tmp_path, "test")
