"""Packing: reproducible, atomic, resumable after kill -9, readable by webdataset, and never over other data."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from data_pipeline.config import OnError
from data_pipeline.index import file_sha256, index_path, scan_tar
from data_pipeline.manifest import MANIFEST, Manifest
from data_pipeline.shards import UNFINISHED, ShardSet
from data_pipeline.sources import Digits, Photographs, UnusableImage
from data_pipeline.verification import verify
from data_pipeline.write import write_shards


class Few(Photographs):
    """Sixty small crops."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(count=60, resolution=6, seed=seed)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    write_shards(Few(), tmp_path / "packed", samples_per_shard=7)
    return tmp_path / "packed"


def test_a_packed_folder_describes_itself(packed: Path) -> None:
    assert [path.name for path in sorted(packed.glob("*.tar"))] == [f"shard-{i:06d}.tar" for i in range(9)]
    manifest = Manifest.read(packed / MANIFEST)
    assert [entry.samples for entry in manifest.shards] == [7] * 8 + [4]
    assert manifest.samples == 60
    assert manifest.preparation == Few().preparation()
    assert (manifest.channels, manifest.resolution, manifest.class_names) == (3, 6, ("china", "flower"))
    assert verify(packed) == []
    assert not list(packed.glob("*.partial"))
    assert not (packed / UNFINISHED).exists()


def test_plain_webdataset_reads_the_same_bytes(digits: Path) -> None:
    import webdataset as wds

    shards, source = ShardSet.open(str(digits)), Digits("train")
    urls = [str(path) for path in shards.shards]
    count = 0
    for sample in wds.WebDataset(urls, shardshuffle=False):
        expected = source.sample(count)
        assert {name: sample[name] for name in expected} == expected
        count += 1
    assert count == 1442


def test_packing_again_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    time.sleep(1.1)  # tar stores whole seconds
    packing = write_shards(Few(), tmp_path / "again", samples_per_shard=7)
    assert (packing.written, packing.kept) == (9, 0)
    assert contents(tmp_path / "again") == contents(packed)


def test_a_finished_folder_is_left_untouched(packed: Path) -> None:
    before = {path: path.stat() for path in packed.iterdir()}
    packing = write_shards(Few(), packed, samples_per_shard=7)
    assert (packing.written, packing.kept) == (0, 9)
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }


class Tell:
    """A progress callable that sends each count to the process that will kill this one."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __call__(self, done: int, total: int) -> None:
        self.connection.send(done)


def pack_and_kill(out: Path, after: int, delay: float) -> bool:
    """Pack in a process of its own and kill -9 it after that many samples; False if it finished before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["webdataset", "sklearn.datasets", "data_pipeline.write"])
    ours, theirs = context.Pipe()
    process = context.Process(
        target=write_shards, args=(Few(), out), kwargs={"samples_per_shard": 7, "progress": Tell(theirs)}
    )
    process.start()
    theirs.close()
    with contextlib.suppress(EOFError):  # it finished first
        while ours.poll(30) and ours.recv() < after:
            pass
    time.sleep(delay)
    process.kill()
    process.join()
    return process.exitcode == -9


def test_packing_survives_kill_9_at_random_points(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    chance = random.Random(0)
    killed = [pack_and_kill(out, chance.randrange(1, 60), chance.random() * 0.003) for _ in range(12)]
    assert sum(killed) >= 6
    write_shards(Few(), out, samples_per_shard=7)
    assert contents(out) == contents(packed)


def test_resuming_keeps_whole_shards_and_no_others(packed: Path) -> None:
    whole = contents(packed)
    (packed / MANIFEST).unlink()
    plan = json.loads(whole[MANIFEST]) | {"shards": []}
    (packed / UNFINISHED).write_text(json.dumps(plan))
    shard = [packed / f"shard-{i:06d}.tar" for i in range(9)]
    index_path(shard[1]).unlink()  # killed between a shard and its index
    damaged = bytearray(whole[shard[2].name])
    damaged[700] ^= 1
    shard[2].write_bytes(damaged)
    shard[3].write_bytes(whole[shard[3].name][:2000])
    (packed / "shard-000008.tar.0123abcd.partial").write_bytes(b"half")
    kept = shard[0].stat().st_mtime_ns
    packing = write_shards(Few(), packed, samples_per_shard=7)
    assert (packing.written, packing.kept) == (3, 6)
    assert shard[0].stat().st_mtime_ns == kept
    assert contents(packed) == whole


@pytest.mark.parametrize("finished", [True, False])
def test_another_preparation_is_refused(packed: Path, finished: bool) -> None:
    if not finished:
        (packed / MANIFEST).rename(packed / UNFINISHED)
    before = contents(packed)
    with pytest.raises(ValueError, match=r"different preparation \(preparation\.seed: 1 here, 0 there\)"):
        write_shards(Few(seed=1), packed, samples_per_shard=7)
    with pytest.raises(ValueError, match="samples_per_shard: 8 here, 7 there"):
        write_shards(Few(), packed, samples_per_shard=8)
    with pytest.raises(ValueError, match=r"preparation\.source: 'digits' here, 'photographs' there"):
        write_shards(Digits(), packed, samples_per_shard=7)
    assert contents(packed) == before


def test_shards_of_others_are_not_overwritten(numbered: Path) -> None:
    before = contents(numbered)
    with pytest.raises(ValueError, match="holds shards of unknown origin"):
        write_shards(Few(), numbered)
    assert contents(numbered) == before


def test_a_finished_folder_that_lost_a_shard_gets_it_again(packed: Path) -> None:
    whole, kept = contents(packed), (packed / "shard-000000.tar").stat().st_mtime_ns
    (packed / "shard-000004.tar").unlink()
    (packed / "shard-000005.tar").write_bytes(b"cut")
    (packed / "shard-000006.json").unlink()
    packing = write_shards(Few(), packed, samples_per_shard=7)
    assert (packing.written, packing.kept) == (3, 6)
    assert contents(packed) == whole
    assert (packed / "shard-000000.tar").stat().st_mtime_ns == kept


def test_flipped_bits_are_mended_where_that_is_asked_for(packed: Path) -> None:
    whole = contents(packed)
    shard = packed / "shard-000004.tar"
    shard.write_bytes(whole[shard.name][:700] + b"?" + whole[shard.name][701:])
    assert write_shards(Few(), packed, samples_per_shard=7).written == 0  # no byte is read
    assert write_shards(Few(), packed, samples_per_shard=7, repair=True).written == 1
    assert contents(packed) == whole
    with pytest.raises(ValueError, match="holds no finished packing"):
        write_shards(Few(), packed / "other", repair=True)


def test_a_shard_that_comes_out_otherwise_is_no_repair(packed: Path) -> None:
    class Other(Few):
        def sample(self, i: int) -> dict[str, str | bytes]:
            return super().sample((i + 2) % 60) | {"__key__": f"{i:08d}"}

    (packed / "shard-000004.tar").unlink()
    with pytest.raises(
        ValueError, match=r"shard-000004\.tar was packed again and is not what .*manifest\.json says"
    ):
        write_shards(Other(), packed, samples_per_shard=7)


def test_two_packings_into_one_folder_are_one_too_many(tmp_path: Path) -> None:
    class Nested(Few):
        def sample(self, i: int) -> dict[str, str | bytes]:
            if i == 5:
                with pytest.raises(ValueError, match="is being packed by another process"):
                    write_shards(Few(), tmp_path, samples_per_shard=7)
            return super().sample(i)

    assert write_shards(Nested(), tmp_path, samples_per_shard=7).written == 9
    assert verify(tmp_path) == []
    assert not (tmp_path / "packing.lock").exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    others = ["thesis.partial", "x.skipped", "shard-000000.tar.partial", "my-shard-000000.skipped"]
    for name in others:
        (tmp_path / name).write_text("not ours")
    ours = tmp_path / "shard-000003.json.0123abcd.partial"
    ours.write_bytes(b"")
    write_shards(Few(), tmp_path, samples_per_shard=7)
    assert [(tmp_path / name).read_text() for name in others] == ["not ours"] * 4
    assert not ours.exists()


def test_a_full_disk_names_the_shard_and_the_folder(tmp_path: Path) -> None:
    class Full(Few):
        def sample(self, i: int) -> dict[str, str | bytes]:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=rf"no room for shard .*shard-000000\.tar: make some in {tmp_path}"):
        write_shards(Full(), tmp_path)


def test_each_of_two_skipped_images_of_one_name_is_listed(tmp_path: Path) -> None:
    class Twins(Few):
        def sample(self, i: int) -> dict[str, str | bytes]:
            if i in (1, 2):
                raise UnusableImage("twin", f"bad {i}")
            return super().sample(i)

    expected = (("twin", "bad 1"), ("twin", "bad 2"))
    packing = write_shards(Twins(), tmp_path, samples_per_shard=30, on_error=OnError.skip)
    assert packing.manifest.skipped == Manifest.read(tmp_path / MANIFEST).skipped == expected
    (tmp_path / MANIFEST).rename(tmp_path / UNFINISHED)
    document = {"kind": "quasistatic skipped images", "version": 2, "skipped": expected}
    (tmp_path / "shard-000000.skipped").write_text(json.dumps(document))
    again = write_shards(Twins(), tmp_path, samples_per_shard=30, on_error=OnError.skip)
    assert (again.written, again.manifest.skipped) == (0, expected)


def test_a_source_that_fails_leaves_no_half_shard(tmp_path: Path) -> None:
    class Failing(Few):
        def sample(self, i: int) -> dict[str, str | bytes]:
            if i == 10:
                raise ValueError("picture 10 is damaged")
            return super().sample(i)

    with pytest.raises(ValueError, match="picture 10 is damaged"):
        write_shards(Failing(), tmp_path, samples_per_shard=7)
    assert sorted(contents(tmp_path)) == [UNFINISHED, "shard-000000.json", "shard-000000.tar"]
    assert write_shards(Few(), tmp_path, samples_per_shard=7).kept == 1


def test_keys_must_be_distinct(tmp_path: Path) -> None:
    class Same(Few):
        def sample(self, i: int) -> dict[str, str | bytes]:
            return super().sample(i) | {"__key__": f"a.{i}"}

    with pytest.raises(ValueError, match="keys must be distinct and have no dots"):
        write_shards(Same(), tmp_path)


def test_progress_counts_samples(tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []
    write_shards(Few(), tmp_path, samples_per_shard=25, progress=lambda done, total: counts.append((done, total)))
    assert counts == [(i, 60) for i in range(1, 61)]
    with pytest.raises(ValueError, match="samples_per_shard must be at least 1"):
        write_shards(Few(), tmp_path, samples_per_shard=0)


def test_the_index_is_that_of_a_scan(packed: Path) -> None:
    for entry in Manifest.read(packed / MANIFEST).shards:
        shard = packed / entry.name
        assert scan_tar(shard).sha256 == entry.sha256 == file_sha256(shard)
