"""Reading spans: right bytes from many threads with few open files, and a clear error at a cut."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_pipeline.index import Member
from data_pipeline.read import ShardReader


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_many_threads_read_many_files_through_few_descriptors(tmp_path: Path) -> None:
    members = []
    for i in range(20):
        path = tmp_path / f"{i}.tar"
        path.write_bytes(bytes([i]) * 1000)
        members += [Member(path, f"{i}", "png", offset, 100) for offset in (0, 500, 900)]
    before = open_files()
    reader = ShardReader(max_open=3)
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(reader.read, members * 20))
    assert read == [bytes([int(member.key)]) * 100 for member in members * 20]
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
