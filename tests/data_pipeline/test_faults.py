"""Faults of shards as a run meets them: recovered, or named with shard and key; never silent, never a hang.

Those of a server and of a cache are tested beside them, those of packing beside the sources.
"""

from __future__ import annotations

import logging
import pickle
import re
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline.config import DataConfig, OnError
from data_pipeline.decode import UndecodableImage
from data_pipeline.index import ShardIndex, index_path
from data_pipeline.shards import ShardSet
from data_pipeline.stream import DataStream
from data_pipeline.write import write_shards
from tests.data_pipeline.bombs import huge_png
from tests.data_pipeline.conftest import encode, numbered_sample
from tests.data_pipeline.slow import Slow
from tests.data_pipeline.test_index import write_tar

SIZE = 20
SECOND = "shard-000001.tar"  # of samples 7 … 13


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Forty images in six shards, with a manifest."""
    write_shards(Slow(0.0), tmp_path / "packed", samples_per_shard=7)
    return tmp_path / "packed"


def config(shards: Path, **options: object) -> DataConfig:
    return DataConfig(str(shards), resolution=4, channels=1, batch=4, **options)


def epoch(stream: DataStream, rank: int = 0, world: int = 1) -> list[torch.Tensor]:
    with stream.open(0, rank, world) as batches:
        return [batch.x for batch in islice(batches, len(stream) // 4)]


def cut(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:5000])


def flip_header(shard: Path) -> None:
    """A bit in the name of its fourth sample."""
    data = bytearray(shard.read_bytes())
    member = ShardIndex.read(shard).member(3, "png")
    assert member is not None
    data[member.offset - 512] ^= 1
    shard.write_bytes(data)


def flip_image(shard: Path) -> None:
    """A bit in the image of its fourth sample, where its compressed pixels begin."""
    data = bytearray(shard.read_bytes())
    member = ShardIndex.read(shard).member(3, "png")
    assert member is not None
    data[data.index(b"IDAT", member.offset) + 4] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut, rf"shard .*{SECOND} is truncated or another file: it has 5000 bytes, manifest\.json says \d+"),
        (lambda shard: shard.unlink(), rf"shard .*{SECOND} is missing"),
        (flip_header, rf"shard .*{SECOND}, key '00000010', png at bytes .*the index disagrees with its shard"),
        (flip_image, rf"shard .*{SECOND}, key '00000010', png at bytes \d+:\d+: .*cannot decode"),
    ],
)
def test_a_damaged_shard_is_named(packed: Path, harm: Callable[[Path], None], message: str) -> None:
    harm(packed / SECOND)
    with pytest.raises(ValueError, match=message):
        epoch(DataStream(config(packed, workers=2), seed=0))


@pytest.mark.parametrize(
    "harm",
    [cut, flip_header, flip_image, Path.unlink, lambda shard: index_path(shard).write_text("x")],
)
def test_damage_that_comes_while_streaming_is_skipped(packed: Path, harm: Callable[[Path], None]) -> None:
    stream = DataStream(config(packed, on_error=OnError.skip), seed=0)
    harm(packed / SECOND)
    seen = torch.cat(epoch(stream))[:, 0, 0, 0].tolist()
    bad = {10} if harm in (flip_header, flip_image) else set(range(8, 14) if harm is cut else range(7, 14))
    assert not bad & set(seen)
    assert len(seen) == 40


def test_a_missing_index_is_built_again(packed: Path) -> None:
    expected = epoch(DataStream(config(packed), seed=0))
    for index in packed.glob("shard-*.json"):
        index.unlink()
    assert all(
        torch.equal(*pair) for pair in zip(epoch(DataStream(config(packed), seed=0)), expected, strict=True)
    )
    assert index_path(packed / SECOND).is_file()


# What may be wrong with the fifth of twenty samples, and what is said of it.
MEMBERS = {
    "zero length": ({"png": b""}, "png at bytes .*the image has no bytes"),
    "no image": ({"png": b"hello"}, "png at bytes .*cannot decode"),
    "a bomb": ({"png": huge_png()}, "png at bytes .*(60000x60000|3600000000) pixels"),
    "code": ({"pyd": b"MZ"}, r"expected one image .*, got members pyd"),
    "a pickle": ({"pickle": pickle.dumps(1), "cls": b"1"}, r"expected one image .*, got members cls, pickle"),
    "an array": ({"npy": b"\x93NUMPY"}, r"expected one image .*, got members npy"),
    "two images": (
        {"png": encode(np.zeros((4, 4), np.uint8)), "webp": encode(np.zeros((4, 4, 3), np.uint8), "WEBP")},
        r"expected one image .*, got members png, webp",
    ),
}


@pytest.fixture(params=MEMBERS)
def bad_member(request: pytest.FixtureRequest, pack: Callable[..., Path]) -> tuple[Path, str]:
    members, message = MEMBERS[request.param]
    samples = [numbered_sample(i) for i in range(SIZE)]
    samples[5] = {"__key__": samples[5]["__key__"], **members}
    return pack(samples), message


def test_a_bad_member_is_an_error_with_shard_and_key(bad_member: tuple[Path, str]) -> None:
    shards, message = bad_member
    with pytest.raises(UndecodableImage, match=rf"shard .*part-0000\.tar, key '000005'.*{message}"):
        epoch(DataStream(config(shards), seed=0))


def test_a_bad_member_is_skipped_by_all_ranks_alike(
    bad_member: tuple[Path, str], caplog: pytest.LogCaptureFixture
) -> None:
    shards, message = bad_member
    skipping = config(shards, workers=2, on_error=OnError.skip)
    with caplog.at_level(logging.WARNING, "data_pipeline"):
        alone = epoch(DataStream(skipping, seed=0))
        halves = [epoch(DataStream(skipping, seed=0), rank, 2) for rank in (0, 1)]
    for batch, *parts in zip(alone, *halves, strict=True):
        assert torch.equal(batch, torch.cat(parts))
    seen = sorted(torch.cat(alone)[:, 0, 0, 0].tolist())
    assert len(seen) == SIZE
    assert 5 not in seen
    assert set(seen) == set(range(SIZE)) - {5}
    logged = [record.getMessage() for record in caplog.records]
    assert any(re.search(rf"skipped shard .*key '000005'.*{message}", line) for line in logged)


NAMES = ["../../up", "/etc/abs", "a/../../b", "~/.ssh/id"]


def test_names_of_members_never_become_paths(tmp_path: Path) -> None:
    image = numbered_sample(7)["png"]
    folder = tmp_path / "deep" / "shards"
    folder.mkdir(parents=True)
    write_tar(folder / "a.tar", [(f"{name}.png", image) for name in NAMES])
    stream = DataStream(config(folder), seed=0)
    with stream.open(0) as batches:
        assert next(batches).x[:, 0, 0, 0].tolist() == [7] * 4
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert made == {"deep", "deep/shards", "deep/shards/a.tar", "deep/shards/a.json"}
    assert ShardSet.open(str(folder)).index(0).keys == tuple(NAMES)


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    image = numbered_sample(7)["png"]
    write_tar(tmp_path / "a.tar", [(f"{i}.png", image) for i in range(4)])
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"{kind!r}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    assert ShardSet.open(str(tmp_path)).size == 4
