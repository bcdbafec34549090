"""Which shards have classes, wherever these are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import DataConfig
from tests.data_pipeline.conftest import encode
from tests.data_pipeline.test_index import write_tar
from trainer.metrics.evaluation import has_classes


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (("a.cls", b"3"), True),
        (("a.json", b'{"label": 3}'), True),
        (("a.json", b'{"caption": "a cat"}'), False),
        (("a.txt", b"a cat"), False),
    ],
)
def test_a_class_is_a_member_or_in_the_json_member(
    tmp_path: Path, member: tuple[str, bytes], expected: bool
) -> None:
    write_tar(tmp_path / "a.tar", [("a.png", encode(np.zeros((4, 4), np.uint8))), member])
    assert has_classes(DataConfig(str(tmp_path))) == expected
