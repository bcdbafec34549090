"""Verification: every damaged, missing and foreign shard by its name, with the keys that are seen to be hit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.index import ShardIndex, index_path
from data_pipeline.manifest import MANIFEST
from data_pipeline.shards import UNFINISHED
from data_pipeline.sources import Photographs
from data_pipeline.verification import _checksums_hold, verify
from data_pipeline.write import write_shards
from tests.data_pipeline.conftest import encode


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    write_shards(Photographs(count=30, resolution=8), tmp_path / "packed", samples_per_shard=5)
    return tmp_path / "packed"


def flip(shard: Path, byte: int) -> None:
    data = bytearray(shard.read_bytes())
    data[byte] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize("workers", [1, 3])
def test_each_bad_shard_is_named_once_and_no_other(packed: Path, workers: int) -> None:
    done: list[tuple[int, int]] = []
    shards = [packed / f"shard-{n:06d}.tar" for n in range(6)]
    hit = ShardIndex.read(shards[0]).member(2, "png")
    assert hit is not None
    flip(shards[0], hit.offset + hit.size // 2)
    flip(shards[1], shards[1].stat().st_size - 1)  # behind the end-of-archive marker
    shards[2].unlink()
    shards[3].write_bytes(shards[3].read_bytes()[:1000])
    (packed / "stranger.tar").write_bytes(b"")
    index_path(shards[4]).write_text("{}")
    problems = verify(packed, workers=workers, progress=lambda *count: done.append(count))
    expected = [
        r"shard-000000.tar has sha256 .* damaged at the keys 00000002",
        r"shard-000001.tar has sha256 .* every image still decodes, so the damage is in pixels, in",
        r"shard-000002.tar is missing",
        r"shard-000003.tar has sha256 .* it has 1000 bytes and not 20480",
        r"shard-000004.tar: .*shard-000004.json is not a quasistatic shard index",
        r"stranger.tar is not in manifest.json",
    ]
    assert len(problems) == len(expected)
    for problem, pattern in zip(problems, expected, strict=True):
        assert re.search(pattern, problem), problem
    assert done[-1] == (5, 5)


def test_any_flipped_bit_of_a_png_is_told_from_its_key(packed: Path) -> None:
    shard = packed / "shard-000002.tar"
    member = ShardIndex.read(shard).member(1, "png")
    assert member is not None
    whole = shard.read_bytes()
    for byte in range(member.offset, member.offset + member.size, 7):
        flip(shard, byte)
        assert "damaged at the keys 00000011" in verify(packed)[0], byte - member.offset
        shard.write_bytes(whole)


def test_a_whole_folder_has_no_problems_and_is_left_as_it_is(packed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    assert verify(packed, workers=2) == []
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before


def test_a_damaged_header_hits_its_key(packed: Path) -> None:
    shard = packed / "shard-000005.tar"
    member = ShardIndex.read(shard).member(4, "png")
    assert member is not None
    flip(shard, member.offset - 512)  # the first letter of its name
    assert "damaged at the keys 00000029" in verify(packed)[0]


def test_many_keys_are_counted(packed: Path) -> None:
    shard = packed / "shard-000000.tar"
    shard.write_bytes(bytes(shard.stat().st_size))
    assert verify(packed)[0].endswith("damaged at the keys 00000000, 00000001, 00000002, 00000003, 00000004")


def test_without_an_index_nothing_is_known_of_the_keys(packed: Path) -> None:
    shard = packed / "shard-000000.tar"
    flip(shard, 600)
    index_path(shard).unlink()
    assert "it has no index that would tell which samples are hit" in verify(packed)[0]


def test_a_packing_that_was_stopped_is_no_whole_folder(packed: Path) -> None:
    plan = json.loads((packed / MANIFEST).read_text()) | {"shards": []}
    (packed / MANIFEST).unlink()
    (packed / UNFINISHED).write_text(json.dumps(plan))
    assert verify(packed) == [f"{packed} was not packed to its end: run the same packing again"]


def test_a_packing_that_was_stopped_in_its_first_shard_is_told(packed: Path) -> None:
    (packed / MANIFEST).rename(packed / UNFINISHED)
    for file in packed.glob("shard-*"):
        file.unlink()
    assert verify(packed) == [f"{packed} was not packed to its end: run the same packing again"]


@pytest.mark.parametrize(("field", "value"), [("samples", 4), ("tar_bytes", 10_240)])
def test_a_manifest_that_counts_otherwise_is_not_whole(packed: Path, field: str, value: int) -> None:
    document = json.loads((packed / MANIFEST).read_text())
    document["shards"][2][field] = value
    (packed / MANIFEST).write_text(json.dumps(document))
    (problem,) = verify(packed)
    assert re.search(r"shard-000002\.tar has 5 samples in 20480 bytes, manifest\.json says", problem)


def test_bytes_behind_the_end_of_a_png_are_no_damage() -> None:
    data = encode(np.zeros((4, 4), np.uint8))
    assert _checksums_hold(data + b"a thumbnail, or some such")
    assert not _checksums_hold(data[:-14] + b"?" + data[-13:])


@pytest.mark.parametrize("field", ["samples", "tar_bytes"])
@pytest.mark.parametrize("value", [10**30, -2, True, 2.0])
def test_a_count_that_is_none_is_refused(packed: Path, field: str, value: object) -> None:
    document = json.loads((packed / MANIFEST).read_text())
    document["shards"][2][field] = value
    (packed / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(ValueError, match=f"manifest.json: field '{field}' must be"):
        verify(packed)


def test_a_document_of_a_hundred_thousand_brackets_is_refused(packed: Path) -> None:
    (packed / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not a quasistatic manifest: it is nested too deeply"):
        verify(packed)
