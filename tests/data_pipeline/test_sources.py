"""Sources: real images, held-out splits, and clear errors for folders."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.decode import decode_image
from data_pipeline.folder import Folder
from data_pipeline.manifest import MANIFEST, Manifest
from data_pipeline.preparation import Preparation
from data_pipeline.sources import Digits, Photographs, Shuffled, Source, UnusableImage
from data_pipeline.transforms import center_crop_square, resize_lanczos
from data_pipeline.write import write_shards

Encode = Callable[..., bytes]


def picture(height: int = 9, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels(sample: dict[str, str | bytes], channels: int) -> np.ndarray:
    data = sample["png"]
    assert isinstance(data, bytes)
    return decode_image(data, channels=channels)


def test_digits_are_scikit_learns_in_two_splits() -> None:
    from sklearn.datasets import load_digits

    real, train, test = load_digits(), Digits("train"), Digits("test")
    assert (len(train), len(test)) == (1442, 355)
    seen = set()
    for source in (train, test):
        for sample in map(source.sample, range(len(source))):
            number = int(sample["__key__"])
            seen.add(number)
            assert int(sample["cls"]) == real.target[number]
            np.testing.assert_array_equal(np.rint(pixels(sample, 1)[0] * (16 / 255)), real.images[number])
    assert len(seen) == 1797


def test_both_splits_of_the_digits_have_every_class_alike() -> None:
    train, test = (np.bincount(Digits(split)._labels) for split in ("train", "test"))
    assert (np.abs(train - 4 * test) <= 4).all()


def test_ink_covers_the_range_of_a_byte() -> None:
    values = np.unique(Digits("train")._images)
    assert values.tolist() == [round(v * 255 / 16) for v in range(17)]


def test_photographs_are_crops_by_number_alone() -> None:
    from sklearn.datasets import load_sample_image

    source = Photographs(count=6, resolution=32, seed=5)
    china = load_sample_image("china.jpg").transpose(2, 0, 1)
    crop = pixels(source.sample(4), 3)
    windows = np.lib.stride_tricks.sliding_window_view(china[:, :, :480], (3, 32, 32))[0]
    assert (windows == crop).all(axis=(2, 3, 4)).sum() >= 1
    assert source.sample(4) == Photographs(count=100, resolution=32, seed=5).sample(4)
    assert source.sample(4) != Photographs(count=6, resolution=32, seed=6).sample(4)
    assert [source.sample(i)["cls"] for i in range(3)] == [b"0", b"1", b"0"]


def test_test_crops_share_no_pixel_with_training_crops() -> None:
    train, test = (Photographs(1, 8, split)._regions[0] for split in ("train", "test"))
    assert (train.shape[2], test.shape[2]) == (480, 160)
    assert not np.shares_memory(train, test)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Digits("valid"), "split must be one of train, test, got 'valid'"),
        (lambda: Photographs(1, 161, "test"), r"resolution must be in \[1, 160\] for the test split"),
        (lambda: Photographs(1, 428), r"resolution must be in \[1, 427\] for the train split"),
        (lambda: Photographs(0, 8), "count must be at least 1, got 0"),
    ],
)
def test_bad_choices_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_folder_passes_bytes_through(tmp_path: Path, encode: Encode) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    files = {"deep/b.JPEG": encode(picture(), "JPEG"), "deep/er/ä.webp": encode(picture(), "WEBP")}
    files |= {"deep/a.x.png": encode(picture())}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "deep" / "readme.txt").write_text("no image")
    samples = [Folder(tmp_path).sample(i) for i in range(len(Folder(tmp_path)))]
    names = [json.loads(sample["json"])["name"] for sample in samples]
    assert names == ["deep/a.x.png", "deep/b.JPEG", "deep/er/ä.webp"]
    for sample, extension, name in zip(samples, ("png", "jpg", "webp"), names, strict=True):
        assert sample[extension] == files[name]
    assert [sample["__key__"] for sample in samples] == ["00000000", "00000001", "00000002"]


def test_a_folder_prepares_as_stylegans_tool(tmp_path: Path, encode: Encode) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture(30, 50)))
    source = Folder(tmp_path, Preparation(resolution=16))
    expected = np.asarray(resize_lanczos(center_crop_square(Image.open(io.BytesIO(encode(picture(30, 50))))), 16))
    np.testing.assert_array_equal(pixels(source.sample(0), 3), expected.transpose(2, 0, 1))


def test_subfolders_are_classes(tmp_path: Path, encode: Encode) -> None:
    for name in ("cat/1.png", "dog/sub/2.png", "ant/3.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(encode(picture()))
    source = Folder(tmp_path)
    assert source.class_names == ("ant", "cat", "dog")
    assert [source.sample(i)["cls"] for i in range(3)] == [b"0", b"1", b"2"]
    (tmp_path / "0.png").write_bytes(encode(picture()))
    with pytest.raises(ValueError, match=r"in subfolders, which name classes, and 1 beside them \(0\.png"):
        Folder(tmp_path)


def test_a_flat_folder_has_no_classes(tmp_path: Path, encode: Encode) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture()))
    assert Folder(tmp_path).class_names == ()
    assert "cls" not in Folder(tmp_path).sample(0)


def test_a_changed_folder_has_another_preparation(tmp_path: Path, encode: Encode) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture()))
    before = Folder(tmp_path).preparation()
    assert Folder(tmp_path).preparation() == before
    (tmp_path / "a.png").write_bytes(encode(picture(40, 40)))
    assert Folder(tmp_path).preparation() != before


@pytest.mark.parametrize(
    ("data", "resolution", "message"),
    [
        (b"nothing", None, r"b\.png: Pillow cannot decode"),
        (b"nothing", 8, r"b\.png: Pillow cannot decode"),
        (None, 10, r"b\.png: the image has 12x9 pixels, smaller than resolution=10"),
    ],
)
def test_a_bad_file_is_named(
    tmp_path: Path, encode: Encode, data: bytes | None, resolution: int | None, message: str
) -> None:
    (tmp_path / "b.png").write_bytes(data or encode(picture()))
    with pytest.raises(ValueError, match=message):
        Folder(tmp_path, Preparation(resolution)).sample(0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("missing", {}, "there is no folder .*missing"),
        ("", {}, r"holds no images: expected files in \.jpeg, \.jpg, \.png, \.webp"),
        ("", {"max_images": 0}, "holds no images"),
    ],
)
def test_a_bad_folder_is_refused(tmp_path: Path, name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Folder(tmp_path / name, **options)


def test_names_that_are_no_utf8_are_escaped(tmp_path: Path, encode: Encode) -> None:
    names = [os.fsencode(tmp_path) + b"/images/caf\xe9/" + name for name in (b"a\xff.png", b"b.png")]
    os.makedirs(os.path.dirname(names[0]))
    for name in names:
        Path(os.fsdecode(name)).write_bytes(encode(picture()))
    source = Folder(tmp_path / "images")
    assert json.loads(source.sample(0)["json"])["name"] == os.fsdecode(b"caf\xe9/a\xff.png")
    write_shards(source, tmp_path / "out")
    assert Manifest.read(tmp_path / "out" / MANIFEST).class_names == source.class_names == (r"caf\udce9",)
    Path(os.fsdecode(names[0])).write_bytes(b"")
    with pytest.raises(UnusableImage, match=r"^caf\\udce9/a\\udcff\.png: the image has no bytes"):
        source.sample(0)


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**26 + 1)
    source = Folder(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(UnusableImage, match="at most 67108864 are decoded"):
        source.sample(0)


def test_a_shuffled_source_holds_the_same_samples_in_an_order_of_its_seed() -> None:
    source = Digits("test")
    one, same, other = Shuffled(source, 3), pickle.loads(pickle.dumps(Shuffled(source, 3))), Shuffled(source, 4)
    assert isinstance(one, Source)
    keys = [[each.sample(i)["__key__"] for i in range(len(each))] for each in (source, one, same, other)]
    assert keys[1] == keys[2]
    assert len({tuple(each) for each in keys}) == 3
    assert sorted(keys[0]) == sorted(keys[1]) == sorted(keys[3])
    assert one.preparation() == source.preparation() | {"shuffle": 3}
