"""Description: counts, classes and statistics against numpy's own, and the contact sheet."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.config import OnError
from data_pipeline.description import contents, described, evenly_spaced, sampled, write_contact_sheet
from data_pipeline.lsun import Lsun
from data_pipeline.preparation import Check, Preparation
from data_pipeline.shards import ShardSet
from data_pipeline.sources import Photographs
from data_pipeline.write import write_shards
from tests.data_pipeline.conftest import encode
from tests.data_pipeline.lsun import lsun_images, make_lmdb


@pytest.fixture
def packed(tmp_path: Path) -> ShardSet:
    write_shards(Photographs(count=30, resolution=8), tmp_path / "packed", samples_per_shard=7)
    return ShardSet.open(str(tmp_path / "packed"))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_shards_hold_is_counted(packed: ShardSet, workers: int) -> None:
    source, seen = Photographs(count=30, resolution=8), []
    lengths = [len(source.sample(i)["png"]) for i in range(30)]
    held = contents(packed, workers=workers, progress=lambda *count: seen.append(count))
    assert (held.samples, held.formats, held.classes) == (30, {"png": 30}, {0: 15, 1: 15})
    assert held.image_bytes == (sum(lengths), min(lengths), max(lengths))
    assert held.tar_bytes == sum(path.stat().st_size for path in packed.shards)
    assert seen[-1] == (5, 5)


def test_statistics_are_those_of_the_pixels(packed: ShardSet) -> None:
    source = Photographs(count=30, resolution=8)
    images = np.stack([np.asarray(Image.open(io.BytesIO(source.sample(i)["png"]))) for i in range(30)]) / 255
    found = sampled(packed, 100, channels=3)
    assert (found.count, found.undecodable, found.sizes) == (30, 0, {"8x8": 30})
    np.testing.assert_allclose(found.mean, images.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, images.std((0, 1, 2)), rtol=1e-9)
    some = sampled(packed, 6, channels=3)
    np.testing.assert_allclose(some.mean, images[::5].mean((0, 1, 2)), rtol=1e-12)
    assert sampled(packed, 6, channels=3) == some


def test_the_contact_sheet_shows_samples_in_their_order(packed: ShardSet, tmp_path: Path) -> None:
    source = Photographs(count=30, resolution=8)
    assert write_contact_sheet(packed, tmp_path / "sheet.png", 6, channels=3) == 6
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 10 - 2, 3 * 10 - 2, 3)
    for place in range(6):
        top, left = place // 3 * 10, place % 3 * 10
        expected = np.asarray(Image.open(io.BytesIO(source.sample(5 * place)["png"])))
        np.testing.assert_array_equal(sheet[top : top + 8, left : left + 8], expected)


def test_large_images_become_thumbnails_and_bad_ones_gaps(tmp_path: Path, pack: Callable[..., Path]) -> None:
    large = encode(np.full((300, 600, 3), 200, np.uint8))
    folder = pack([{"__key__": "a", "png": large}, {"__key__": "b", "png": b"x"}, {"__key__": "c", "cls": b"4"}])
    shards = ShardSet.open(str(folder))
    assert write_contact_sheet(shards, tmp_path / "sheet.png", 9, channels=3) == 3
    assert Image.open(tmp_path / "sheet.png").size == (258, 258)
    assert contents(shards).classes == {4: 1}
    assert (sampled(shards, 9, 3).count, sampled(shards, 9, 3).undecodable) == (1, 2)


def test_a_document_names_classes_and_what_was_skipped(packed: ShardSet, tmp_path: Path) -> None:
    document = described(contents(packed), sampled(packed, 9, 3), packed)
    assert document["classes"] == {"china": 15, "flower": 15}
    assert (document["shards"], document["samples"], document["skipped"]) == (5, 30, 0)
    path = make_lmdb(tmp_path / "lmdb", lsun_images(5) | {"f" * 40: b""})
    source = Lsun(path, Preparation(check=Check.header))
    write_shards(source, tmp_path / "lsun", on_error=OnError.skip)
    shards = ShardSet.open(str(tmp_path / "lsun"))
    document = described(contents(shards), sampled(shards, 9, 3), shards)
    assert (document["samples"], document["skipped"], document["formats"]) == (5, 1, {"webp": 5})


def test_a_class_that_is_none_is_named(pack: Callable[..., Path]) -> None:
    shards = ShardSet.open(str(pack([{"__key__": "a", "png": b"x", "cls": b"cat"}])))
    with pytest.raises(ValueError, match=r"part-0000\.tar, key 'a', cls at bytes .*non-negative integer"):
        contents(shards)


def test_samples_are_spread_evenly() -> None:
    assert evenly_spaced(10, 3) == [0, 3, 6]
    assert evenly_spaced(3, 10) == [0, 1, 2]


def test_classes_in_json_are_counted_and_those_of_one_name_kept_apart(tmp_path: Path) -> None:
    class Twins(Photographs):
        def sample(self, i: int) -> dict[str, str | bytes]:
            sample = super().sample(i)
            label = sample.pop("cls").decode() if i < 6 else '"unknown"'
            return sample | {"json": f'{{"label": {label}}}'.encode()}

    source = Twins(count=8, resolution=8)
    source.class_names = ("crane", "crane")
    write_shards(source, tmp_path / "twins")
    shards = ShardSet.open(str(tmp_path / "twins"))
    document = described(contents(shards), sampled(shards, 1, 3), shards)
    assert document["classes"] == {"crane (0)": 4, "crane (1)": 4}  # two by cls
