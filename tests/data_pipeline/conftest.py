"""Small shards for the tests of the data pipeline."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.sources import Digits
from data_pipeline.write import write_shards

Sample = Mapping[str, str | bytes]


def encode(image: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=format)
    return buffer.getvalue()


def numbered_sample(i: int, size: int = 4) -> dict[str, str | bytes]:
    """Sample i: left half of value i, right half of value 255 - i, class i % 10."""
    image = np.full((size, size), i, np.uint8)
    image[:, size // 2 :] = 255 - i
    return {"__key__": f"{i:06d}", "png": encode(image), "cls": str(i % 10).encode()}


@pytest.fixture(name="encode")
def encode_fixture() -> Callable[..., bytes]:
    return encode


@pytest.fixture
def number() -> Callable[..., dict[str, str | bytes]]:
    return numbered_sample


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Write samples with webdataset's own ShardWriter, seven to a shard, and return the folder."""
    from webdataset import ShardWriter

    def pack(samples: Sequence[Sample], name: str = "shards") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        with ShardWriter(str(folder / "part-%04d.tar"), maxcount=7, verbose=0, encoder=False) as writer:
            for sample in samples:
                writer.write(sample)
        return folder

    return pack


@pytest.fixture
def numbered(pack: Callable[..., Path]) -> Path:
    """Thirty numbered 4x4 gray samples in five shards."""
    return pack([numbered_sample(i) for i in range(30)])


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed training digits: read-only for tests."""
    out = tmp_path_factory.mktemp("digits")
    write_shards(Digits("train"), out, samples_per_shard=400)
    return out
