"""Tarballs: byte for byte what tarfile writes, with the index that a scan finds."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from data_pipeline.index import scan_tar
from data_pipeline.tarball import Tarball

SAMPLES = [
    {"__key__": "a", "png": b"1" * 700, "cls": b"3"},
    {"__key__": "b" * 150, "webp": b"2" * 512},  # too long for one header
    {"__key__": "ü", "png": b"", "json": b"{}"},
]


def written(path: Path, samples: list[dict[str, str | bytes]]) -> Tarball:
    with path.open("wb") as file:
        tarball = Tarball(file)
        for sample in samples:
            tarball.add(sample)
        tarball.close()
    return tarball


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_bytes_are_those_of_tarfile(tmp_path: Path, count: int) -> None:
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w") as tar:
        for sample in SAMPLES[:count]:
            for extension in sorted(sample.keys() - {"__key__"}):
                member = tarfile.TarInfo(f"{sample['__key__']}.{extension}")
                member.size, member.mode = len(sample[extension]), 0o444
                tar.addfile(member, io.BytesIO(sample[extension]))
    tarball = written(tmp_path / "a.tar", SAMPLES[:count])
    assert (tmp_path / "a.tar").read_bytes() == expected.getvalue()
    assert tarball.index(tmp_path / "a.tar").same_as(scan_tar(tmp_path / "a.tar"))
    assert len(tarball) == count


@pytest.mark.parametrize("key", ["a", "b.c", "../up", "/abs", "", "__meta__", "nul\0"])
def test_keys_that_would_be_read_otherwise_are_refused(key: str) -> None:
    tarball = Tarball(io.BytesIO())
    tarball.add({"__key__": "a", "png": b"1"})
    with pytest.raises(ValueError, match="keys must be distinct and have no dots and no slashes, got "):
        tarball.add({"__key__": key, "png": b"2"})
