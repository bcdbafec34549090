"""Tars of others as a source: what is kept, what is refused by name, and what is never believed."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import OnError
from data_pipeline.index import ShardIndex
from data_pipeline.preparation import Preparation
from data_pipeline.sources import Source
from data_pipeline.tars import Tars
from data_pipeline.write import write_shards
from tests.data_pipeline.bombs import huge_png
from tests.data_pipeline.conftest import encode

PNG = encode(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
Members = Sequence[tuple[str, bytes]]


def tar_of(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def tars(tmp_path: Path) -> Callable[..., str]:
    """Writes tars of these members and returns their folder."""

    def write(*shards: Members) -> str:
        folder = tmp_path / "theirs"
        folder.mkdir()
        for number, members in enumerate(shards):
            tar_of(folder / f"part-{number:03d}.tar", members)
        return str(folder)

    return write


def jpeg() -> bytes:
    return encode(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "JPEG")


FINE = [
    [("b/1.png", PNG), ("b/1.cls", b"3"), ("b/1.json", b'{"caption": "a cat"}'), ("b/2.JPEG", jpeg())],
    [("b/1.png", PNG), ("b/1.cls", b"0\n")],  # the same key as in the tar before
]


def test_samples_pass_through_with_their_class_and_document(tars: Callable[..., str]) -> None:
    source = Tars(tars(*FINE))
    assert isinstance(source, Source)
    sent = pickle.loads(pickle.dumps(source))
    for each in (source, sent):
        assert [each.sample(i) for i in range(len(each))] == [
            {"__key__": "00000000", "png": PNG, "cls": b"3", "json": b'{"caption": "a cat"}'},
            {"__key__": "00000001", "jpg": jpeg()},
            {"__key__": "00000002", "png": PNG, "cls": b"0\n"},
        ]


def test_the_format_is_that_of_the_bytes_and_not_of_the_name(tars: Callable[..., str]) -> None:
    assert Tars(tars([("a.jpg", PNG)])).sample(0) == {"__key__": "00000000", "png": PNG}


def test_tars_are_packed_with_any_workers(tars: Callable[..., str], tmp_path: Path) -> None:
    path = tars(*FINE, [(f"{i}.png", PNG) for i in range(20)])
    one = write_shards(Tars(path), tmp_path / "one", samples_per_shard=5)
    two = write_shards(Tars(path + "/part-{000..002}.tar"), tmp_path / "two", samples_per_shard=5, workers=2)
    assert one.manifest.shards == two.manifest.shards
    assert one.manifest.formats == {"jpg": 1, "png": 22}
    assert ShardIndex.read(tmp_path / "one" / "shard-000004.tar").keys[-1] == "00000022"


def test_images_can_be_prepared(tars: Callable[..., str]) -> None:
    sample = Tars(tars([("a.jpg", jpeg())]), Preparation(resolution=2)).sample(0)
    assert sample["png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("extension", ["pyd", "pickle", "npy", "pth", "seg.png", "txt"])
def test_other_members_are_refused_by_name_or_dropped_knowingly(tars: Callable[..., str], extension: str) -> None:
    path = tars([("a.png", PNG)], [("b.png", PNG), (f"b.{extension}", pickle.dumps(print))])
    with pytest.raises(
        ValueError, match=rf"part-001\.tar, key 'b' has a member \.{extension}, .*drop=\[{extension}\]"
    ):
        Tars(path)
    source = Tars(path, drop=[extension, "other"])
    assert source.sample(1) == {"__key__": "00000001", "png": PNG}
    assert source.preparation()["drop"] == sorted([extension, "other"])


def test_names_never_become_paths(tars: Callable[..., str], tmp_path: Path) -> None:
    names = ["../../up.png", "/etc/abs.png", "a/../b.png", "new\nline.png", "é.png"]
    source = Tars(tars([(name, PNG) for name in names]))
    before = set(tmp_path.rglob("*"))
    packing = write_shards(source, tmp_path / "out" / "shards", samples_per_shard=4)
    assert packing.manifest.samples == 5
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} - {
        path.relative_to(tmp_path).as_posix() for path in before
    }
    assert made == {"out", "out/shards"} | {
        f"out/shards/{name}"
        for name in ("manifest.json", *(f"shard-00000{n}.{end}" for n in (0, 1) for end in ("tar", "json")))
    }
    with tarfile.open(tmp_path / "out" / "shards" / "shard-000000.tar") as tar:
        assert tar.getnames() == [f"0000000{i}.png" for i in range(4)]


BAD = {
    "zero length": [("x.png", b"")],
    "no image": [("x.png", b"hello")],
    "no member": [("x.cls", b"1")],
    "two images": [("x.png", PNG), ("x.jpg", jpeg())],
    "a bomb": [("x.png", huge_png())],
    "cut": [("x.webp", encode(np.zeros((9, 9, 3), np.uint8), "WEBP")[:-9])],
}
SAYS = {
    "zero length": "the image has no bytes",
    "no image": "neither a PNG, a JPEG nor a WebP: it begins with 68656c6c6f",
    "no member": "expected one image .*, got members cls",
    "two images": "expected one image .*, got members jpg, png",
    "a bomb": r"3600000000 pixels\) exceeds limit",
    "cut": "Pillow cannot decode the image's header",
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_packed_is_named_or_skipped(tars: Callable[..., str], tmp_path: Path, bad: str) -> None:
    source = Tars(tars([("a.png", PNG), *BAD[bad], ("z.png", PNG)]))
    with pytest.raises(ValueError, match=rf"theirs/part-000\.tar, sample 1, key 'x': .*{SAYS[bad]}"):
        write_shards(source, tmp_path / "raise")
    packing = write_shards(source, tmp_path / "skip", on_error=OnError.skip)
    assert packing.manifest.samples == 2
    assert [name for name, _ in packing.manifest.skipped] == [f"{source._path}/part-000.tar, sample 1, key 'x'"]


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("x.cls", b"cat"), r"part-000\.tar, key 'x', cls at bytes .*must be a non-negative integer"),
        (("x.json", b"[1]"), r"key 'x', json at .*must hold an object, got list: mend it, or .*drop=\[json\]"),
        (("x.json", b"\x80\x04"), r"key 'x', json at "),
    ],
)
def test_a_class_or_document_that_is_none_is_refused(
    tars: Callable[..., str], member: tuple[str, bytes], message: str
) -> None:
    path = tars([("x.png", PNG), member])
    with pytest.raises(ValueError, match=message):
        Tars(path).sample(0)
    assert Tars(path, drop=[member[0][2:]]).sample(0) == {"__key__": "00000000", "png": PNG}


def test_a_tar_that_is_cut_is_refused_before_anything_is_packed(tars: Callable[..., str]) -> None:
    path = tars(*FINE)
    tar = Path(path) / "part-001.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"shard .*part-001\.tar is truncated"):
        Tars(path)


def test_a_tar_that_changes_meanwhile_is_noticed(tars: Callable[..., str]) -> None:
    path = tars(*FINE)
    source = Tars(path)
    tar_of(Path(path) / "part-000.tar", [("c.png", PNG), ("c.cls", b"3")])
    with pytest.raises(ValueError, match=r"part-000\.tar, key 'b/1'"):
        source.sample(0)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("theirs/part-{000..003}.tar", r"there is no folder or tar .*part-002\.tar"),
        ("theirs/part-{0.tar", "Unbalanced braces"),
        ("empty", r"empty is a folder without \*\.tar shards"),
        ("none/*.tar", "holds no samples"),
    ],
)
def test_a_path_of_nothing_is_refused(tars: Callable[..., str], tmp_path: Path, path: str, message: str) -> None:
    tars(*FINE)
    for folder in ("empty", "none"):
        (tmp_path / folder).mkdir()
    tar_of(tmp_path / "none" / "a.tar", [])
    with pytest.raises(ValueError, match=message):
        Tars(str(tmp_path / path))


def test_the_preparation_tells_other_tars(tars: Callable[..., str], tmp_path: Path) -> None:
    first = Tars(tars(*FINE)).preparation()
    tar_of(tmp_path / "theirs" / "part-001.tar", [("b/1.png", PNG), ("b/1.cls", b"1")])
    assert Tars(str(tmp_path / "theirs")).preparation() != first
    assert json.dumps(first)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_is_refused_by_its_name(tars: Callable[..., str], kind: bytes) -> None:
    path = tars([("a.png", PNG)])
    link = tarfile.TarInfo("b.png")
    link.type, link.linkname = kind, "a.png"
    with tarfile.open(Path(path) / "part-000.tar", "a") as tar:
        tar.addfile(link)
    with pytest.raises(ValueError, match=r"part-000\.tar: member 'b\.png' is a link: pack it as a plain file"):
        Tars(path)


def test_reading_tars_is_followed(tars: Callable[..., str]) -> None:
    done: list[tuple[int, int]] = []
    Tars(tars(*FINE), progress=lambda *count: done.append(count))
    assert done == [(1, 2), (2, 2)]
