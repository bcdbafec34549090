"""CIFAR-10's binary files: written byte by byte as their format says, read back; the pickled ones never opened."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.cifar import BATCHES, Cifar10
from data_pipeline.decode import decode_image
from data_pipeline.write import write_shards

COUNTS = {**{f"data_batch_{n}.bin": n for n in range(1, 6)}, "test_batch.bin": 3}


def records(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and images [N, 3, 32, 32] of a batch."""
    drawn = np.random.default_rng(len(name) * 100 + COUNTS[name])
    count = COUNTS[name]
    return drawn.integers(0, 10, count, np.uint8), drawn.integers(0, 256, (count, 3, 32, 32), np.uint8)


def batch(name: str) -> bytes:
    """<1 x label><3072 x pixel> … <1 x label><3072 x pixel>, the planes red, green, blue (Krizhevsky's page)."""
    return b"".join(bytes([label]) + image.tobytes() for label, image in zip(*records(name), strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    for name in COUNTS:
        (inner / name).write_bytes(batch(name))
    (inner / "batches.meta.txt").write_text("airplane\n")
    return inner


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    """In the order of the archive that is distributed, which is not that of the numbers."""
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("data_batch_1.bin", "batches.meta.txt", "data_batch_3.bin", "data_batch_4.bin"):
            tar.add(folder / name, f"cifar-10-batches-bin/{name}")
        for name in ("test_batch.bin", "data_batch_5.bin", "data_batch_2.bin"):
            tar.add(folder / name, f"cifar-10-batches-bin/{name}")
    return path


@pytest.fixture(params=["folder", "the folder above", "archive"])
def path(request: pytest.FixtureRequest, folder: Path, archive: Path) -> Path:
    return {"folder": folder, "the folder above": folder.parent, "archive": archive}[request.param]


@pytest.mark.parametrize("split", BATCHES)
def test_images_are_in_the_order_of_the_batches_with_their_classes(path: Path, split: str) -> None:
    source = Cifar10(path, split)
    labels, images = (np.concatenate(part) for part in zip(*map(records, BATCHES[split]), strict=True))
    assert len(source) == len(labels)
    for i in (*range(len(source)), 0):  # in order, and once back
        sample = source.sample(i)
        assert isinstance(sample["png"], bytes)
        np.testing.assert_array_equal(decode_image(sample["png"], channels=3), images[i])
        assert sample["cls"] == str(labels[i]).encode()


def test_folder_and_archive_are_the_same_preparation(folder: Path, archive: Path, tmp_path: Path) -> None:
    assert Cifar10(folder).preparation() == Cifar10(archive).preparation()
    write_shards(Cifar10(folder), tmp_path / "shards")
    assert write_shards(Cifar10(archive), tmp_path / "shards").kept == 1
    (folder / "data_batch_4.bin").write_bytes(batch("data_batch_5.bin")[: 4 * 3073])
    assert Cifar10(folder).preparation() != Cifar10(archive).preparation()


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("packed", [True, False])
def test_the_pickled_version_is_refused_unopened_and_the_binary_one_named(tmp_path: Path, packed: bool) -> None:
    inner = tmp_path / "cifar-10-batches-py"
    inner.mkdir()
    for name in ("batches.meta", "data_batch_1", "test_batch"):
        (inner / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(inner, inner.name)
    for place in [archive] if packed else [inner, tmp_path]:
        with pytest.raises(
            ValueError, match=r"python version .* pickles; .* never opened here: .*binary\.tar\.gz"
        ):
            Cifar10(place)
    assert not (tmp_path / "sprung").exists()


BAD = {
    "cut": (batch("data_batch_3.bin")[:-1], r"data_batch_3\.bin must hold 1 to 10000 records of 3073 bytes"),
    "empty": (b"", r"data_batch_3\.bin must hold 1 to 10000 records of 3073 bytes.* has 0 bytes"),
    "too long": (bytes(10_001 * 3073), r"data_batch_3\.bin must hold 1 to 10000 records"),
    "no class": (bytes(3073) + b"\x0a" + bytes(3072), r"data_batch_3\.bin must hold labels .* got 10 in record 1"),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=BAD)
def test_a_bad_batch_is_named_with_what_was_expected(folder: Path, data: bytes, said: str) -> None:
    (folder / "data_batch_3.bin").write_bytes(data)
    with pytest.raises(ValueError, match=said):
        Cifar10(folder)
    Cifar10(folder, "test")


def test_a_missing_batch_and_a_missing_path_are_named(folder: Path) -> None:
    (folder / "data_batch_5.bin").unlink()
    with pytest.raises(ValueError, match=r"must hold the binary version of CIFAR-10 .*has no data_batch_5\.bin"):
        Cifar10(folder)
    with pytest.raises(ValueError, match="there is no nowhere"):
        Cifar10(Path("nowhere"))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-3000], lambda data: b"no" + data[2:]], ids=["cut", "other"]
)
def test_a_damaged_archive_is_named(archive: Path, damage: Callable[[bytes], bytes]) -> None:
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"binary\.tar\.gz is no tar archive, cut or damaged"):
        Cifar10(archive)


def test_a_damaged_archive_of_another_compression_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        tar.add(folder, "cifar-10-batches-bin")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"binary\.tar\.xz is no tar archive, cut or damaged"):
        Cifar10(path)
