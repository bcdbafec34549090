"""Labels and captions out of JSON members, with the shard and the key in every complaint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import DataConfig
from data_pipeline.dataset import Dataset
from data_pipeline.decode import Limits
from data_pipeline.shards import ShardSet


@pytest.fixture
def dataset(pack: Callable[..., Path], number: Callable[..., dict[str, bytes]]) -> Callable[..., Dataset]:
    def dataset(*members: dict[str, bytes], limits: Limits | None = None, classes: int = 0) -> Dataset:
        samples = [{"__key__": f"{i}", "png": number(i)["png"]} | member for i, member in enumerate(members)]
        config = DataConfig(str(pack(samples)), resolution=4, channels=1)
        return Dataset(ShardSet.open(config.shards), config, limits or Limits(), classes)

    return dataset


def test_a_class_is_in_cls_or_else_in_json(dataset: Callable[..., Dataset]) -> None:
    both = {"cls": b"3", "json": b'{"label": 4}'}
    found = dataset(both, {"json": b'{"label": 4}'}, {"json": b'{"cls": 5, "caption": "x"}'})
    assert [found.label(i) for i in range(3)] == [3, 4, 5]


def test_what_is_no_class_is_named(dataset: Callable[..., Dataset]) -> None:
    found = dataset({}, {"json": b'{"name": "a.png"}'}, {"json": b"["}, {"json": b'{"label": 9}'}, classes=9)
    for i, message in enumerate(
        (
            r"key '0' has no class \(a \.cls member, or cls or label in its \.json member\)",
            r"key '1', json at bytes \d+:\d+: has no class: expected a non-negative integer under cls or label",
            r"key '2', json at bytes \d+:\d+: Expecting value",
            r"key '3', json at bytes \d+:\d+: the class must be below network\.classes=9, got 9",
        )
    ):
        with pytest.raises(ValueError, match=r"shard .*part-0000\.tar, " + message):
            found.label(i)


def test_captions_and_documents(dataset: Callable[..., Dataset]) -> None:
    found = dataset({"json": b'{"caption": "ein Haus", "width": 4}'}, {"json": b'{"caption": 1}'}, {})
    assert found.caption(0) == "ein Haus"
    assert found.document(0) == {"caption": "ein Haus", "width": 4}
    assert found.document(1) == {"caption": 1}
    with pytest.raises(ValueError, match=r"part-0000\.tar, key '1', json at bytes .*: has no caption"):
        found.caption(1)
    with pytest.raises(ValueError, match=r"part-0000\.tar, key '2' has no \.json member"):
        found.caption(2)


def test_a_document_over_the_limit_is_not_read(dataset: Callable[..., Dataset]) -> None:
    found = dataset({"json": b'{"caption": "long"}', "cls": b"1"}, limits=Limits(max_document=10))
    assert found.label(0) == 1
    with pytest.raises(ValueError, match=r"key '0', json at .*: the member has 19 bytes, and at most 10 are read"):
        found.document(0)


def test_the_image_of_a_sample(dataset: Callable[..., Dataset]) -> None:
    image = dataset({}, {}).image(1)
    np.testing.assert_array_equal(image, [[[1, 1, 254, 254]] * 4])
