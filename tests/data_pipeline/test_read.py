"""Reading spans: right bytes from many threads with few open files, and a clear error at a cut."""

from __future__ import annotations

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.index import Member, ShardIndex, scan_tar
from data_pipeline.read import ShardReader


def tar_of(path: Path, files: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> ShardIndex:
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return scan_tar(path)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_many_threads_read_many_files_through_few_descriptors(tmp_path: Path) -> None:
    members = []
    for i in range(20):
        index = tar_of(tmp_path / f"{i}.tar", {f"{i}/{row}.png": bytes([i]) * 100 for row in range(3)})
        members += [index.member(row, "png") for row in range(3)]
    before = open_files()
    reader = ShardReader(max_open=3)
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(reader.read, members * 20))
    assert read == [bytes([int(member.key.split("/")[0])]) * 100 for member in members * 20]
    reader.read(members[0])
    assert open_files() <= before + 3
    reader.close()
    assert open_files() == before
    assert reader.read(members[-1]) == bytes([19]) * 100
    reader.close()


def test_a_short_read_names_shard_key_and_span(tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    path.write_bytes(bytes(600))
    with pytest.raises(ValueError, match=r"shard .*cut\.tar, key 'k', png at bytes 512:712: only 88 of 200 bytes"):
        ShardReader().read(Member(path, "k", "png", 512, 200))


def test_a_reader_needs_a_file() -> None:
    with pytest.raises(ValueError, match="max_open must be at least 1"):
        ShardReader(max_open=0)


def test_a_span_that_is_another_members_is_refused(digits):
    """Two spans swapped in an index of the right size would mislabel silently."""
    index = ShardIndex.read(digits / "shard-000000.tar")
    one, other = index.member(0, "png"), index.member(1, "png")
    reader = ShardReader()
    assert reader.read(one) != reader.read(other)
    swapped = replace(one, offset=other.offset, size=other.size)
    with pytest.raises(ValueError, match=f"key '{one.key}', png .* the index disagrees with its shard"):
        reader.read(swapped)


LONG = ["c" * 140, "d" * 120 + "/" + "e" * 120]
FORMATS = {tarfile.USTAR_FORMAT: [], tarfile.GNU_FORMAT: LONG, tarfile.PAX_FORMAT: [*LONG, "ü" * 70]}


@pytest.mark.parametrize(
    ("format", "folder"),
    [(format, folder) for format, more in FORMATS.items() for folder in ("", "a" * 60 + "/" + "b" * 60, *more)],
)
def test_long_names_are_read_in_every_tar_format(tmp_path, format, folder):
    name = f"{folder}/x.PNG" if folder else "x.PNG"
    index = tar_of(tmp_path / "s.tar", {name: b"abc"}, format)
    assert ShardReader().read(index.member(0, "png")) == b"abc"
