"""Remote shards as the stream sees them: the same batches as from a folder, whatever the server does."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline import dataset
from data_pipeline.config import DataConfig, OnError
from data_pipeline.dataset import Encoded
from data_pipeline.decode import UndecodableImage
from data_pipeline.index import index_path, scan_tar
from data_pipeline.manifest import MANIFEST
from data_pipeline.remote.access import Access
from data_pipeline.remote.shards import AGAIN
from data_pipeline.shards import ShardSet
from data_pipeline.storage import Unreachable
from data_pipeline.stream import Batch, DataStream, readers_of_node
from data_pipeline.write import write_shards
from tests.data_pipeline.remote.server import Handler, Server, hang, instead, status, tag
from tests.data_pipeline.test_index import write_tar

SEED = 3


class Numbered:
    """Thirty numbered samples as a source."""

    description, class_names, channels, resolution = "numbers", (), 1, 4

    def __init__(self, sample: Callable[[int], dict[str, str | bytes]]) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 30

    def preparation(self) -> dict[str, str]:
        return {"source": "numbers"}


@pytest.fixture
def packed(site: Path, number: Callable[[int], dict[str, str | bytes]]) -> Path:
    """Five shards with a manifest, of 7, 7, 7, 7 and 2 samples, on the server."""
    write_shards(Numbered(number), site / "set", samples_per_shard=7)  # type: ignore[arg-type]
    return site / "set"


@pytest.fixture
def config(packed: Path, access: Access) -> DataConfig:
    """Of the folder; the server has the same."""
    patience = {"timeout": access.timeout, "retries": 2, "cache": access.cache, "cache_bytes": access.cache_bytes}
    return DataConfig(str(packed), resolution=4, channels=1, batch=6, labels=True, **patience)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch, access: Access) -> None:
    """No long pauses in what a configuration says."""
    monkeypatch.setattr(DataConfig, "access", property(lambda self: replace(_access(self), pause=access.pause)))


def _access(config: DataConfig) -> Access:
    return Access(config.cache, config.cache_bytes, config.timeout, config.retries)


def take(config: DataConfig, count: int, cursor: int = 0, rank: int = 0, world: int = 1) -> list[Batch]:
    with DataStream(config, SEED).open(cursor, rank, world) as batches:
        return list(islice(batches, count))


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return all(
        torch.equal(a.x, b.x) and torch.equal(a.condition, b.condition) and torch.equal(a.index, b.index)
        for a, b in zip(ours, theirs, strict=True)
    )


def parts(server: Server) -> list[str]:
    return sorted({path.rpartition("/")[2] for _, path, _ in server.asked})


def test_a_manifest_is_all_that_opening_reads(server: Server, packed: Path, access: Access) -> None:
    shards = ShardSet.open(f"{server.url}/set", access)
    again = ShardSet.open(f"{server.url}/set/{MANIFEST}", access)
    assert parts(server) == [MANIFEST]
    assert shards.size == again.size == 30
    assert shards.fingerprint == again.fingerprint == ShardSet.open(str(packed)).fingerprint
    assert [str(url) for url in shards.shards[:2]] == [f"{server.url}/set/shard-00000{n}.tar" for n in (0, 1)]


def test_of_a_pattern_the_indexes_are_read(server: Server, packed: Path, access: Access) -> None:
    shards = ShardSet.open(f"{server.url}/set/shard-{{000004..000001}}.tar", access)
    assert shards.sizes == [2, 7, 7, 7]
    assert parts(server) == [f"shard-00000{n}.json" for n in (1, 2, 3, 4)]
    assert shards.index(0).keys == ("000028", "000029")


def test_a_shard_without_an_index_is_downloaded_once_and_indexed(
    server: Server, packed: Path, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    index_path(packed / "shard-000001.tar").unlink()
    pattern = f"{server.url}/set/shard-{{000000..000001}}.tar"
    for _ in range(2):
        with caplog.at_level(logging.INFO):
            shards = ShardSet.open(pattern, access)
        assert shards.index(1).same_as(scan_tar(packed / "shard-000001.tar"))
        os.close(shards.open_shard(shards.shards[1]))
    assert server.ranges("/set/shard-000001.tar") == [""]
    assert caplog.text.count(f"indexing {server.url}/set/shard-000001.tar, which has no index") == 1
    # Other bytes under the same address are another shard.
    os.replace(packed / "shard-000002.tar", packed / "shard-000001.tar")
    assert ShardSet.open(pattern, access).index(1).keys[0] == "000014"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", r"manifest\.json is not there \(404 .*name the shards: .*/nowhere/shard-\{000000"),
        ("set/shard-{000003..000005}.tar", r"shard-000005\.tar is not there"),
        ("set/shard-{0.tar", "Unbalanced braces"),
        ("{set,other}/", "a pattern must name tars, and a manifest stands alone"),
    ],
)
def test_a_name_of_nothing_is_refused(
    server: Server, packed: Path, access: Access, spec: str, message: str
) -> None:
    with pytest.raises((Unreachable, ValueError), match=message):
        ShardSet.open(f"{server.url}/{spec}", access)


def test_a_manifest_cannot_name_files_of_the_cache(server: Server, packed: Path, access: Access) -> None:
    fields = json.loads((packed / MANIFEST).read_text())
    fields["shards"][2]["sha256"] = "../../evil"
    (packed / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"shard-000002\.tar: its manifest .* 64 hexadecimal digits .*evil"):
        ShardSet.open(f"{server.url}/set", access)


def test_an_index_that_is_none_is_refused(server: Server, packed: Path, access: Access) -> None:
    shards = ShardSet.open(f"{server.url}/set", access)
    (packed / "shard-000000.json").write_text("<html>")
    with pytest.raises(ValueError, match=rf"{server.url}/set/shard-000000\.json is not a quasistatic shard index"):
        shards.index(0)
    (packed / "shard-000001.json").write_bytes(
        (packed / "shard-000000.json").with_name("shard-000002.json").read_bytes()
    )
    with pytest.raises(ValueError, match=rf"index {server.url}/set/shard-000001\.json disagrees with its shard"):
        shards.index(1)


@pytest.mark.parametrize("spec", ["set", "set/shard-{000000..000004}.tar"])
def test_batches_are_those_of_the_folder(server: Server, config: DataConfig, spec: str) -> None:
    for change in ({}, {"window": 2, "lanes": 2}, {"workers": 0}):
        local = replace(config, **change)  # type: ignore[arg-type]
        assert same(take(replace(local, shards=f"{server.url}/{spec}"), 12), take(local, 12))
    assert all(server.ranges(f"/set/shard-00000{n}.tar") == [""] for n in range(5))


def batches_of_rank(config: DataConfig, rank: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(batch.x.numpy(), batch.index.numpy()) for batch in take(config, 6, rank=rank, world=2)]


def test_two_ranks_share_a_cache_and_read_what_one_reads(server: Server, config: DataConfig) -> None:
    # More ranks than the pattern has shards, and shards of 7 and 2 samples.
    config = replace(config, shards=f"{server.url}/set/shard-00000{{3,4}}.tar", timeout=5.0, window=1)
    alone = take(config, 6)
    for file in Path(config.cache).glob("*.tar"):
        file.unlink()
    server.asked.clear()
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as processes:
        ranks = list(processes.map(partial(batches_of_rank, config), range(2)))
    for k, batch in enumerate(alone):
        x, index = (np.concatenate(halves) for halves in zip(*(rank[k] for rank in ranks), strict=True))
        assert np.array_equal(x, batch.x.numpy())
        assert np.array_equal(index, batch.index.numpy())
    assert [len(server.ranges(f"/set/shard-00000{n}.tar")) for n in (3, 4)] == [1, 1]


def test_shards_are_fetched_before_they_are_needed(server: Server, config: DataConfig) -> None:
    stream = DataStream(replace(config, shards=f"{server.url}/set", window=1, batch=1, prefetch=1), SEED)
    assert len(server.asked) == 3  # the manifest, the first shard and its index
    with stream.open(0) as batches:
        next(batches)
        until(lambda: len(server.asked) == 5)
        time.sleep(0.05)
        assert len(server.asked) == 5  # of two windows, which are two shards here
        next(islice(batches, 9, None))
        until(lambda: len(server.asked) == 7)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("data")]


def disk_use(cache: Path) -> int:
    """The bytes that a cache takes, also of files that are open and have no name any more."""
    sizes = {}
    for file in [*cache.iterdir(), *Path("/proc/self/fd").iterdir()]:
        with suppress(FileNotFoundError):  # closed or evicted meanwhile
            if str(file.resolve()).startswith(str(cache)):
                sizes[file.stat().st_ino] = file.stat().st_size
    return sum(sizes.values())


def test_what_has_been_read_makes_room_for_what_comes(
    server: Server, config: DataConfig, number: Callable[..., dict[str, str | bytes]]
) -> None:
    write_shards(Numbered(number), server.folder / "many", samples_per_shard=1)  # type: ignore[arg-type]
    size, cache = (server.folder / "many" / "shard-000000.tar").stat().st_size, Path(config.cache)
    small = replace(config, shards=f"{server.url}/many", batch=1, window=2, prefetch=1, cache_bytes=9 * size)
    used = []
    with DataStream(small, SEED).open(0) as batches:
        for _ in islice(batches, 30):
            used.append(disk_use(cache))
            time.sleep(0.005)
    fetched = [path for _, path, _ in server.asked if path.endswith(".tar")]
    assert len(fetched) <= 30 + 4 + 3  # two windows of the next epoch are fetched ahead
    assert max(used) <= (9 + 5) * size


def test_no_more_is_fetched_ahead_than_the_cache_holds(
    server: Server, config: DataConfig, caplog: pytest.LogCaptureFixture
) -> None:
    size = (server.folder / "set" / "shard-000000.tar").stat().st_size
    config = replace(config, shards=f"{server.url}/set", cache_bytes=3 * size)
    with DataStream(config, SEED).open(0) as batches:
        assert len(list(islice(batches, 10))) == 10
    kept = sum(file.stat().st_size for file in Path(config.cache).iterdir())
    assert kept <= 3 * size
    assert caplog.text.count("holds fewer shards than it reads in two windows") == 1


@pytest.mark.parametrize("fault", [status(500), hang()])
def test_a_shard_that_cannot_be_had_is_raised_where_it_is_needed(
    server: Server, config: DataConfig, fault: Callable[..., None]
) -> None:
    stream = DataStream(replace(config, shards=f"{server.url}/set", window=1, timeout=0.1, retries=1), SEED)
    for number in range(5):
        server.always[f"/set/shard-00000{number}.tar"] = fault
    expected = rf"{server.url}/set/shard-00000\d\.tar cannot be had: 2 tries failed"
    with stream.open(0) as batches:
        next(batches)
        with pytest.raises(UndecodableImage, match=expected):
            list(islice(batches, 5))


def test_skipping_passes_over_a_shard_that_cannot_be_had(
    server: Server, config: DataConfig, caplog: pytest.LogCaptureFixture
) -> None:
    lost = range(14, 21)  # what the third shard holds
    server.always["/set/shard-000002.tar"] = status(404)
    config = replace(config, shards=f"{server.url}/set", on_error=OnError.skip)
    ranks = [take(config, 10, rank=rank, world=2) for rank in range(2)]
    whole = take(config, 10)
    for k, batch in enumerate(whole):
        assert torch.equal(torch.cat([rank[k].x for rank in ranks]), batch.x)
        assert batch.index.tolist() == list(range(6 * k, 6 * k + 6))
        assert not set(batch.x[:, 0, 0, 0].tolist()) & set(lost)
    lines = [line for line in caplog.messages if line.startswith("skipped")]
    assert len(lines) == 3  # once for each stream
    assert "shard-000002.tar is not there (404" in lines[0]


@pytest.mark.parametrize("what", ["tar", "json"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_was_damaged_in_the_cache_is_fetched_again(
    server: Server, config: DataConfig, what: str, when: str
) -> None:
    config = replace(config, shards=f"{server.url}/set", workers=0)
    whole = take(config, 10)
    if when == "before":
        damage(Path(config.cache), what)
        assert same(take(config, 10), whole)
    else:
        with DataStream(config, SEED).open(0) as batches:
            assert same(list(islice(batches, 5)), whole[:5])
            damage(Path(config.cache), what)
            batches._on_close()  # the open files are closed
            assert same(list(islice(batches, 5)), whole[5:])


def damage(cache: Path, what: str) -> None:
    """Overwrite every header and image of the shards, or move what an index says by a block."""
    for file in cache.glob(f"*.{what}"):
        data = file.read_bytes()
        if what == "tar":
            file.write_bytes(bytes(len(data)))
        else:
            fields = json.loads(data)
            fields["spans"]["png"] = [[offset + 512, size] for offset, size in fields["spans"]["png"]]
            file.write_text(json.dumps(fields))


def test_an_image_that_is_damaged_where_it_comes_from_is_named(server: Server, config: DataConfig) -> None:
    with (server.folder / "set" / "shard-000000.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"x" * 8)
    with pytest.raises(UndecodableImage, match=r"shard-000000\.tar has sha256 .* is expected: publish the shard"):
        take(replace(config, shards=f"{server.url}/set"), 10)


def test_what_is_wrong_otherwise_is_not_asked_of_the_server(
    server: Server, config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that does not fit, and an image that was packed damaged; the server is gone, the cache whole."""
    remote = replace(config, shards=f"{server.url}/set", workers=0, prefetch=1, on_error=OnError.skip)
    take(remote, 5)
    streams = [DataStream(remote, SEED) for _ in range(2)]
    for path in [f"/set/shard-00000{number}.{what}" for number in range(5) for what in ("tar", "json")]:
        server.always[path] = status(500)
    server.asked.clear()
    monkeypatch.setattr(streams[0]._dataset.config, "resolution", 8)
    with streams[0].open(0) as batches, pytest.raises(ValueError, match=r"smaller than data\.resolution=8"):
        next(batches)
    assert server.asked == []
    remote.resolution = 4
    decode = dataset._pixels

    def fails(image: Encoded, room: np.ndarray) -> np.ndarray:
        if image.member.key == "000010":
            raise UndecodableImage("a hole")
        return decode(image, room)

    monkeypatch.setattr(dataset, "_pixels", fails)
    with streams[1].open(0) as batches:
        assert len(list(islice(batches, 10))) == 10
        assert batches.skipped == 2  # a sample in two epochs, and no shard
    assert {path for _, path, _ in server.asked} <= {"/set/shard-000001.json"}


def test_a_damaged_class_is_fetched_again(server: Server, config: DataConfig) -> None:
    remote = replace(config, shards=f"{server.url}/set", workers=0, prefetch=1)
    whole = take(remote, 10)
    with DataStream(remote, SEED).open(0) as batches:
        assert same(list(islice(batches, 5)), whole[:5])
        batches._on_close()  # the open files are closed
        for file in Path(config.cache).glob("*.tar"):
            data = file.read_bytes()
            for digit in range(10):
                data = data.replace(b"%d" % digit + bytes(511), b"x" + bytes(511))
            file.write_bytes(data)
        assert same(list(islice(batches, 5)), whole[5:])
    assert all(len(server.ranges(f"/set/shard-00000{number}.tar")) == 2 for number in range(5))


def test_a_shard_that_was_lost_is_asked_for_again_later(
    server: Server, config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = ShardSet.open(f"{server.url}/set", config.access)
    server.always["/set/shard-000002.tar"] = status(500)
    server.always["/set/shard-000003.tar"] = status(404)
    for number in (2, 3, 2, 3):
        with pytest.raises(Unreachable):
            shards.open_shard(shards.shards[number])
    assert [len(server.ranges(f"/set/shard-00000{number}.tar")) for number in (2, 3)] == [3, 1]
    server.always.clear()
    later = time.monotonic() + AGAIN
    monkeypatch.setattr(time, "monotonic", lambda: later)
    os.close(shards.open_shard(shards.shards[2]))
    with pytest.raises(Unreachable, match="is not there"):
        shards.open_shard(shards.shards[3])


def test_who_waits_for_an_index_sees_its_shard_grow(server: Server, access: Access) -> None:
    write_tar(server.folder / "a.tar", [(f"{row}.png", bytes(100_000)) for row in range(8)])

    def slow(request: Handler, data: bytes, start: int) -> None:
        request.head(200, {"ETag": tag(data), "Content-Length": str(len(data))})
        if request.command == "GET":
            for place in range(0, len(data), 100_000):
                request.send(data[place : place + 100_000])
                time.sleep(0.1)

    server.always["/a.tar"] = slow
    hasty = replace(access, timeout=0.15, retries=0)  # gives up after 0.45 s without a change
    with ThreadPoolExecutor(3) as threads:
        opened = list(threads.map(lambda _: ShardSet.open(f"{server.url}/a.tar", hasty), range(3)))
    assert [shards.size for shards in opened] == [8, 8, 8]
    assert len(server.ranges("/a.tar")) == 1


@pytest.mark.parametrize(
    ("lanes", "world", "local", "readers"),
    [(1, 16, 8, 1), (2, 16, 8, 1), (4, 16, 8, 2), (64, 16, 8, 8), (2, 2, 9, 2)],
)
def test_ranks_that_read_other_shards_share_the_cache(
    lanes: int, world: int, local: int, readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    assert readers_of_node(lanes, world) == readers


@pytest.mark.parametrize("fault", [status(500), hang()])
def test_closing_does_not_wait_for_a_server(
    server: Server, config: DataConfig, fault: Callable[..., None]
) -> None:
    config = replace(config, shards=f"{server.url}/set", window=1, timeout=30.0, retries=9)
    stream = DataStream(config, SEED)
    for number in range(5):
        server.always[f"/set/shard-00000{number}.tar"] = fault
    started = time.monotonic()
    with stream.open(0) as batches:
        next(batches)
        time.sleep(0.3)
    assert time.monotonic() - started < 3
    server.always.clear()
    with stream.open(0) as batches:
        assert len(list(islice(batches, 10))) == 10


def test_a_wrong_answer_of_a_moment_is_survived(server: Server, config: DataConfig) -> None:
    local = take(config, 5)
    server.faults["/set/manifest.json"].append(status(503, Retry_After="0"))
    size = (server.folder / "set" / "shard-000000.tar").stat().st_size
    for number in range(4):
        server.faults[f"/set/shard-00000{number}.tar"].append(instead(bytes(size)))
    assert same(take(replace(config, shards=f"{server.url}/set"), 5), local)


def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
