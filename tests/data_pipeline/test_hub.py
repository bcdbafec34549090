"""Sets of Hugging Face's datasets, if that package is installed: it is no requirement, so these may be skipped."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_pipeline.preparation import Preparation
from data_pipeline.sources import Source, UnusableImage
from tests.data_pipeline.conftest import encode

NAMES = ["cat", "dog"]
IMAGES = [encode(np.full((8, 8, 3), value, np.uint8)) for value in range(6)]


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    return pytest.importorskip("datasets", reason="the package datasets is not installed")


def whole(datasets: Any, count: int = 6) -> Any:
    rows = [{"image": {"bytes": IMAGES[i], "path": None}, "label": i % 2 if i < 5 else -1} for i in range(count)]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def test_a_saved_set_passes_through_with_its_classes(datasets: Any, tmp_path: Path) -> None:
    from data_pipeline.hub import Hub, splits

    whole(datasets).save_to_disk(tmp_path / "saved")
    assert splits(str(tmp_path / "saved")) == []
    source = Hub(str(tmp_path / "saved"))
    assert isinstance(source, Source)
    sent = pickle.loads(pickle.dumps(source))
    assert source.class_names == ("cat", "dog")
    for each in (source, sent):
        assert each.sample(3) == {"__key__": "00000003", "png": IMAGES[3], "cls": b"1"}
        assert each.sample(5) == {"__key__": "00000005", "png": IMAGES[5]}  # its class is not told
    assert Hub(str(tmp_path / "saved"), max_images=2).preparation()["samples"] == 2
    assert source.preparation() == sent.preparation()


def test_splits_are_parts_and_parquet_files_are_read(datasets: Any, tmp_path: Path) -> None:
    from data_pipeline.hub import Hub, splits

    datasets.DatasetDict(train=whole(datasets), test=whole(datasets, 2)).save_to_disk(tmp_path / "saved")
    (tmp_path / "files").mkdir()
    whole(datasets).to_parquet(tmp_path / "files" / "train-00000-of-00001.parquet")
    whole(datasets, 2).to_parquet(tmp_path / "files" / "test-00000-of-00001.parquet")
    for folder in ("saved", "files"):
        path = str(tmp_path / folder)
        assert sorted(splits(path)) == ["test", "train"]
        assert [len(Hub(path, split)) for split in ("train", "test")] == [6, 2]
    sample = Hub(str(tmp_path / "files"), "test", Preparation(resolution=4)).sample(1)
    assert sample["png"] != IMAGES[1]


def test_an_image_that_is_only_named_is_not_fetched(datasets: Any, tmp_path: Path) -> None:
    from data_pipeline.hub import Hub

    secret = tmp_path / "secret.png"
    secret.write_bytes(IMAGES[0])
    rows = [{"image": {"bytes": None, "path": str(secret)}}]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved", num_shards=1)
    state = Hub(str(tmp_path / "saved"))
    state._rows = [{"image": {"bytes": None, "path": str(secret)}}]  # saving put the bytes in
    with pytest.raises(UnusableImage, match="row 0: the set does not hold this image, only its name"):
        state.sample(0)


def test_a_set_without_images_is_refused(datasets: Any, tmp_path: Path) -> None:
    from data_pipeline.hub import Hub

    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="must have one column of images, and has none"):
        Hub(str(tmp_path / "saved"))


def test_the_package_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from data_pipeline import hub

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(hub, "import_module", missing)
    with pytest.raises(ValueError, match=r"needs the package datasets: `pip install datasets`"):
        hub.splits("anything")


def installed(monkeypatch: pytest.MonkeyPatch, version: str, names: list[str]) -> None:
    """A package that loads a set of these splits."""
    from data_pipeline import hub

    package = SimpleNamespace(__version__=version, load_dataset=lambda path: dict.fromkeys(names))
    monkeypatch.setattr(hub, "import_module", lambda name: package)


@pytest.mark.parametrize("name", ["../../up", "/etc", "..", "", "a/b", "-x", "a\n"])
def test_a_split_becomes_no_path(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from data_pipeline import hub

    installed(monkeypatch, "4.1.0", ["train", name])
    with pytest.raises(ValueError, match="a split must be named in letters, digits, dots and dashes"):
        hub.splits("anything")
    installed(monkeypatch, "4.1.0", ["train", "test_2.b-c"])
    assert hub.splits("anything") == ["train", "test_2.b-c"]


def test_a_package_that_runs_the_scripts_of_sets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from data_pipeline import hub

    installed(monkeypatch, "3.6.0", ["train"])
    with pytest.raises(ValueError, match=r"needs datasets 4 or later.* 3\.6\.0 is installed"):
        hub.splits("anything")
