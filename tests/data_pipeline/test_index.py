"""Indexing tars: webdataset's grouping, and every way in which a shard or its index can be wrong."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline.index import ShardIndex, file_sha256, index_path, scan_tar


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w", **options: int) -> Path:
    with tarfile.open(path, mode, **options) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shard(numbered: Path) -> Path:
    return numbered / "part-0000.tar"


def test_spans_hold_the_bytes_of_the_members(shard: Path, number: Callable[..., dict[str, bytes]]) -> None:
    index, data = scan_tar(shard), shard.read_bytes()
    assert index.keys == tuple(f"{i:06d}" for i in range(7))
    for row in range(len(index)):
        for extension in ("png", "cls"):
            member = index.member(row, extension)
            assert member is not None
            assert data[member.offset : member.offset + member.size] == number(row)[extension]
    assert index.sha256 == file_sha256(shard)
    assert index.tar_bytes == len(data)


def test_grouping_is_that_of_webdataset(tmp_path: Path) -> None:
    from webdataset.tariterators import tarfile_samples

    names = ["a/b.c/x.PNG", "a/b.c/x.seg.png", "y.jpg", "../up.png", "/abs.png", ".hidden", "none", "y.jpg"]
    names += ["__meta__/z.png", "ü.tar.gz"]
    path = write_tar(tmp_path / "t.tar", [(name, name.encode()) for name in names], format=tarfile.PAX_FORMAT)
    index, data = scan_tar(path), path.read_bytes()
    ours = []
    for row, key in enumerate(index.keys):
        members = [index.member(row, extension) for extension in index.extensions(row)]
        ours.append({"__key__": key, **{m.extension: data[m.offset : m.offset + m.size] for m in members if m}})
    theirs = [
        {name: value for name, value in sample.items() if name not in ("__url__", "__local_path__")}
        for sample in tarfile_samples([{"url": str(path)}])
    ]
    assert ours == theirs
    assert len(ours) == 6


def test_directories_and_links_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("d.png", tarfile.DIRTYPE), ("l.png", tarfile.SYMTYPE), ("x.png", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert scan_tar(path).keys == ("x",)


def test_an_index_survives_its_file(shard: Path) -> None:
    index = scan_tar(shard)
    index.write()
    assert ShardIndex.read(shard).same_as(index)
    assert not list(shard.parent.glob("*.partial"))


def test_missing_members_stay_missing(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [("a.png", b"1"), ("b.png", b"2"), ("b.cls", b"3")])
    scan_tar(path).write()
    index = ShardIndex.read(path)
    assert index.member(0, "cls") is None
    assert index.member(1, "cls") is not None
    assert index.member(0, "json") is None


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [("a.png", b"1"), ("a.PNG", b"2")])
    with pytest.raises(ValueError, match=r"t\.tar: key 'a' has two members with the extension 'png'"):
        scan_tar(path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [("a.png", b"1" * 700), ("b.png", b"2" * 100)])
    whole = path.read_bytes()
    for length in [*range(0, 2560 + 1024, 256), 1536, 2559, 2561]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"shard .*t\.tar is truncated"):
            scan_tar(path)


def test_a_damaged_header_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [("a.png", b"1"), ("b.png", b"2")])
    data = bytearray(path.read_bytes())
    data[1024] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="truncated or damaged: at byte 1024"):
        scan_tar(path)


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [("a.png", b"1")], mode="w:gz")
    with pytest.raises(ValueError, match="not an uncompressed tar"):
        scan_tar(path)


def test_an_index_must_have_the_length_of_its_shard(shard: Path) -> None:
    scan_tar(shard).write()
    with shard.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(ValueError, match=r"part-0000\.json disagrees with its shard: .* has \d+ bytes"):
        ShardIndex.read(shard)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "of version 99, this program reads version 1"),
        ({"kind": "other"}, "'kind' must be 'quasistatic shard index'"),
        ({"keys": "abc"}, "field 'keys' must be list"),
        ({"sha256": None}, "field 'sha256' must be str"),
        ({"spans": {"png": [[1, 2]]}}, r"spans must have shape \(7, 2\)"),
        ({"spans": {"png": [["x", 2]] * 7}}, "spans must be pairs of integers"),
        ({"bytes": 10**30}, "field 'bytes' must be in"),
        ({"spans": {"png": [[2**62, 2**62 + 2]] * 7}}, "disagrees with its shard: png outside it"),
        ({"spans": {"png": [[512, 2**63 - 1]] * 7}}, "disagrees with its shard: png outside it"),
        ({"spans": {"png": [[512, 10**9]] * 7}}, "disagrees with its shard: png outside it"),
    ],
)
def test_a_malformed_index_is_refused(shard: Path, change: dict[str, object], message: str) -> None:
    scan_tar(shard).write()
    path = index_path(shard)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        ShardIndex.read(shard)


def test_an_index_that_is_not_json_is_refused(shard: Path) -> None:
    index_path(shard).write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="it is not JSON"):
        ShardIndex.read(shard)
