"""ShardSet: opening folders and patterns, refusing what is incomplete, and verifying every byte."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.index import ShardIndex, index_path, scan_tar
from data_pipeline.manifest import MANIFEST, Manifest, ShardEntry
from data_pipeline.shards import UNFINISHED, ShardSet
from data_pipeline.verification import verify


@pytest.fixture
def packed(digits: Path, tmp_path: Path) -> Path:
    """A copy of the packed digits that a test may damage."""
    return Path(shutil.copytree(digits, tmp_path / "packed"))


def test_a_manifest_is_all_that_opening_reads(packed: Path) -> None:
    for index in packed.glob("shard-*.json"):
        index.unlink()
    shards = ShardSet.open(str(packed))
    assert shards.size == 1442
    assert not list(packed.glob("shard-*.json"))
    assert len(shards.index(3)) == 242  # a lost index is built again
    assert index_path(packed / "shard-000003.tar").is_file()


def test_every_sample_is_located_once(digits: Path) -> None:
    shards = ShardSet.open(str(digits))
    located = [shards.locate(i) for i in range(shards.size)]
    assert located == [(s, row) for s, count in enumerate([400, 400, 400, 242]) for row in range(count)]


def test_foreign_shards_are_indexed_once(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ShardSet.open(str(numbered)).size == 30
    monkeypatch.setattr("data_pipeline.shards.scan_tar", None)
    assert ShardSet.open(str(numbered)).size == 30


def test_a_folder_that_cannot_be_written_is_indexed_in_memory(
    numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(index: ShardIndex) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ShardIndex, "write", refuse)
    assert ShardSet.open(str(numbered)).index(4).keys == ("000028", "000029")


def test_a_full_disk_is_not_hidden(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: ShardIndex) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ShardIndex, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        ShardSet.open(str(numbered))


def test_patterns_name_shards(numbered: Path) -> None:
    assert ShardSet.open(f"{numbered}/part-{{0001..0003}}.tar").size == 21
    assert ShardSet.open(f"{numbered}/part-*.tar").size == 30
    assert [path.name for path in ShardSet.open(f"{numbered}/part-000{{4,0}}.tar").shards] == [
        "part-0004.tar",
        "part-0000.tar",
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", r"no folder or shard .*nowhere: make shards with `python -m launch\.pack"),
        ("shards/part-{0003..0005}.tar", r"no folder or shard .*part-0005\.tar"),
        ("shards/part-{0.tar", "Unbalanced braces"),
    ],
)
def test_a_name_of_nothing_is_refused(numbered: Path, spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardSet.open(str(numbered.parent / spec))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"folder without \*\.tar shards: make shards with `python -m launch\.pack"
    ):
        ShardSet.open(str(tmp_path))


def test_shards_without_samples_are_refused(pack) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="holds no samples"):
        ShardSet.open(str(pack([])))


def test_an_unfinished_packing_is_refused(packed: Path) -> None:
    (packed / MANIFEST).rename(packed / UNFINISHED)
    with pytest.raises(ValueError, match="not packed to its end: run the same packing again"):
        ShardSet.open(str(packed))


def test_a_missing_shard_is_refused(packed: Path) -> None:
    (packed / "shard-000002.tar").unlink()
    with pytest.raises(ValueError, match=r"shard-000002\.tar is missing"):
        ShardSet.open(str(packed))


def test_a_truncated_shard_is_refused(packed: Path, numbered: Path) -> None:
    for shard in (packed / "shard-000001.tar", numbered / "part-0001.tar"):
        with shard.open("r+b") as file:
            file.truncate(5000)
    with pytest.raises(ValueError, match=r"shard-000001\.tar is truncated .* has 5000 bytes"):
        ShardSet.open(str(packed))
    with pytest.raises(ValueError, match=r"part-0001\.tar is truncated"):
        ShardSet.open(str(numbered))


def test_an_index_that_disagrees_with_the_manifest_is_refused(packed: Path) -> None:
    index = index_path(packed / "shard-000000.tar")
    index.write_text(json.dumps(json.loads(index.read_text()) | {"sha256": "0"}))
    with pytest.raises(ValueError, match=r"shard-000000\.json disagrees with its shard as manifest\.json"):
        ShardSet.open(str(packed)).index(0)


@pytest.mark.parametrize("name", ["../x.tar", "/x.tar", "..", ""])
def test_a_manifest_cannot_name_paths(packed: Path, name: str) -> None:
    path = packed / MANIFEST
    fields = json.loads(path.read_text())
    fields["shards"][0]["name"] = name
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="plain file name"):
        Manifest.read(path)


def test_verify_finds_nothing_in_a_whole_folder(digits: Path, numbered: Path) -> None:
    assert verify(digits) == []
    ShardSet.open(str(numbered))
    assert verify(numbered) == []


def test_verify_names_each_damaged_shard(packed: Path) -> None:
    shards = [packed / f"shard-00000{i}.tar" for i in range(4)]
    data = bytearray(shards[0].read_bytes())
    data[600] ^= 1  # one bit of one image
    shards[0].write_bytes(data)
    shards[1].unlink()
    index_path(shards[2]).unlink()
    index = scan_tar(shards[3])
    index.spans["png"][0] = index.spans["png"][1]
    index.write()
    shutil.copy(shards[2], packed / "stranger.tar")
    problems = verify(packed)
    expected = ["000000.tar has sha256", "000001.tar is missing", "000002.tar has no index"]
    expected += ["000003.tar disagrees with its index", "stranger.tar is not in manifest.json"]
    assert len(problems) == len(expected)
    assert all(part in problem for part, problem in zip(expected, problems, strict=True))


def test_verify_refuses_a_folder_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds neither manifest"):
        verify(tmp_path)


def test_ten_thousand_shards_open_at_once(tmp_path: Path) -> None:
    # Opening reads the manifest and one listing of the folder; locating needs no index.
    entries = [ShardEntry(f"shard-{number:06d}.tar", 300, 1024, "0" * 64) for number in range(10_000)]
    Manifest("", {}, (), 3, None, 300, tuple(entries)).write(tmp_path / MANIFEST)
    (tmp_path / "one").write_bytes(bytes(1024))
    for entry in entries:
        os.link(tmp_path / "one", tmp_path / entry.name)
    started = time.perf_counter()
    shards = ShardSet.open(str(tmp_path))
    assert time.perf_counter() - started < 2
    places = np.random.default_rng(0).integers(0, shards.size, 100)
    assert [shards.locate(int(i)) for i in places] == [divmod(int(i), 300) for i in places]


def test_the_indexes_used_last_stay_in_memory(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_pipeline.shards.MOST_INDEXES", 2)
    shards, read = ShardSet.open(str(numbered)), []
    read_index = shards.storage.read_index
    monkeypatch.setattr(shards.storage, "read_index", lambda number: read.append(number) or read_index(number))
    for number in (0, 1, 0, 2, 0, 1):
        assert shards.index(number).keys[0] == f"{7 * number:06d}"
    assert read == [0, 1, 2, 1]


def test_an_index_that_changed_since_it_was_opened_is_refused(numbered: Path) -> None:
    shards = ShardSet.open(str(numbered))
    shutil.copy(index_path(numbered / "part-0001.tar"), index_path(numbered / "part-0000.tar"))
    shutil.copy(numbered / "part-0001.tar", numbered / "part-0000.tar")
    with pytest.raises(ValueError, match=r"part-0000\.json disagrees with its shard .* as it was opened"):
        shards.index(0)


def test_a_file_address_is_a_path(digits: Path) -> None:
    assert ShardSet.open(f"file://{digits}").size == ShardSet.open(f"file://localhost{digits}/").size == 1442
    assert ShardSet.open(f"file://{digits}/shard-{{000000..000001}}.tar").size == 800
    with pytest.raises(ValueError, match="files of another host are not read"):
        ShardSet.open(f"file://elsewhere{digits}")


@pytest.mark.parametrize("spec", ["gs://bucket/x", "ftp://host/x.tar", "pipe://curl"])
def test_other_schemes_are_refused(spec: str) -> None:
    with pytest.raises(
        ValueError, match=r"data\.shards=.*:// is not read; shards lie at a path, or at file://, http"
    ):
        ShardSet.open(spec)
