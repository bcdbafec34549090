"""The cache: checked, bounded, shared, and whole whatever happens to the processes and the disk."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.remote.access import Access
from data_pipeline.remote.cache import Cache, Wanted
from data_pipeline.remote.files import Files, RemoteShard
from data_pipeline.remote.part import Part
from data_pipeline.remote.room import STALE, Room, private_folder
from data_pipeline.remote.transfer import Stopped
from data_pipeline.remote.url import Url
from data_pipeline.storage import Unreachable
from tests.data_pipeline.remote.server import Server, hang, instead, status

SIZE = 2**20
DATA = [np.random.default_rng(number).bytes(SIZE) for number in range(8)]
NEVER = threading.Event()


def wanted(number: int) -> Wanted:
    digest = hashlib.sha256(DATA[number]).hexdigest()
    return Wanted(f"{digest}.tar", f"source {number}", SIZE, digest)


def filling(number: int, calls: list[int] | None = None) -> Callable[[Part], None]:
    """Writes what is missing, as a download would."""

    def fill(part: Part) -> None:
        if calls is not None:
            calls.append(number)
        part.write(DATA[number][part.size :])

    return fill


def read(cache: Cache, number: int, calls: list[int] | None = None) -> bytes:
    descriptor = cache.open(wanted(number), filling(number, calls), NEVER)
    try:
        return os.pread(descriptor, SIZE + 1, 0)
    finally:
        os.close(descriptor)


def kept(access: Access) -> set[int]:
    """Which of the shards the folder holds."""
    return {number for number in range(len(DATA)) if (access.folder / wanted(number).name).exists()}


def used(access: Access) -> int:
    """The bytes of the folder's files, while no other process adds or removes one."""
    with Room(access.folder, 0)._locked():
        return sum(file.stat().st_size for file in access.folder.iterdir() if file.suffix != ".note")


def test_a_file_is_fetched_once_and_nothing_else_is_left(access: Access) -> None:
    calls: list[int] = []
    assert read(Cache(access), 0, calls) == read(Cache(access), 0, calls) == DATA[0]
    assert calls == [0]
    assert {file.name for file in access.folder.iterdir()} == {wanted(0).name, "lock"}


def test_threads_that_want_the_same_file_wait_for_one_of_them(access: Access) -> None:
    cache, calls = Cache(access), []

    def slow(part: Part) -> None:
        calls.append(0)
        time.sleep(0.2)
        part.write(DATA[0])

    with ThreadPoolExecutor(8) as threads:
        descriptors = list(threads.map(lambda _: cache.open(wanted(0), slow, NEVER), range(8)))
    assert calls == [0]
    for descriptor in descriptors:
        assert os.pread(descriptor, SIZE, 0) == DATA[0]
        os.close(descriptor)


@pytest.mark.parametrize("damage", ["a bit", "cut", "longer"])
def test_a_file_that_was_damaged_on_disk_is_fetched_again(
    access: Access, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    read(Cache(access), 0)
    path = access.folder / wanted(0).name
    data = bytearray(DATA[0])
    data[500_000] ^= 1
    path.write_bytes({"a bit": bytes(data), "cut": DATA[0][:-1], "longer": DATA[0] + b"x"}[damage])
    calls: list[int] = []
    assert read(Cache(access), 0, calls) == DATA[0]  # by a process that has not opened it before
    assert calls == [0]
    assert "fetching source 0 again: its copy" in caplog.text


def test_a_damage_that_shows_later_is_found_when_asked(access: Access) -> None:
    cache = Cache(access)
    read(cache, 0)
    assert not cache.drop(wanted(0))
    with (access.folder / wanted(0).name).open("r+b") as file:
        file.write(b"x" * 100)
    assert read(cache, 0) != DATA[0]  # it was checked when it was first opened
    assert cache.drop(wanted(0))
    assert read(cache, 0) == DATA[0]


def test_other_bytes_are_fetched_twice_and_then_refused(access: Access) -> None:
    calls: list[int] = []

    def wrong(part: Part) -> None:
        calls.append(part.size)
        part.write(DATA[1][part.size :])

    with pytest.raises(Unreachable, match=r"source 0 has sha256 [0-9a-f]{64}, and [0-9a-f]{64} is expected"):
        Cache(access).open(wanted(0), wrong, NEVER)
    assert calls == [0, 0]
    assert read(Cache(access), 0) == DATA[0]


def test_what_was_used_least_recently_goes_first(access: Access) -> None:
    cache = Cache(replace(access, cache_bytes=3 * SIZE))
    for number in (0, 1, 2, 0, 3):
        read(cache, number)
        time.sleep(0.01)
    assert kept(access) == {0, 2, 3}


def test_what_is_open_goes_last_and_stays_readable(access: Access) -> None:
    cache = Cache(replace(access, cache_bytes=3 * SIZE))
    held = [cache.open(wanted(number), filling(number), NEVER) for number in (0, 1)]
    for number in (2, 3):
        read(cache, number)
    assert kept(access) == {0, 1, 3}
    held += [cache.open(wanted(number), filling(number), NEVER) for number in (4, 5)]
    assert kept(access) == {1, 4, 5}
    for number, descriptor in zip((0, 1, 4, 5), held, strict=True):
        assert os.pread(descriptor, SIZE, 0) == DATA[number]
        os.close(descriptor)


def test_a_part_counts_as_long_as_it_will_be(access: Access) -> None:
    cache = Cache(replace(access, cache_bytes=2 * SIZE))
    read(cache, 0)
    seen: list[set[int]] = []

    def nested(part: Part) -> None:
        read(cache, 2)
        seen.append(kept(access))
        part.write(DATA[1])

    os.close(cache.open(wanted(1), nested, NEVER))
    assert seen == [{2}]


def test_files_of_others_are_left_alone(access: Access) -> None:
    cache = Cache(replace(access, cache_bytes=SIZE))
    for name in ("thesis.tar", "lock.json", "a" * 63 + ".tar"):
        (access.folder / name).write_bytes(b"x" * 10)
    for number in (0, 1):
        read(cache, number)
    assert kept(access) == {1}
    assert len(list(access.folder.iterdir())) == 5


def test_a_cache_smaller_than_a_shard_is_refused(access: Access) -> None:
    with pytest.raises(ValueError, match=rf"data\.cache_bytes=1000 is less than the {SIZE} bytes of source 0"):
        read(Cache(replace(access, cache_bytes=1000)), 0)


def test_who_waits_for_a_process_that_does_nothing_is_told(access: Access) -> None:
    cache, stopped = Cache(replace(access, timeout=0.05, retries=1)), threading.Event()
    part = Part.claim(access.folder / f"{wanted(0).name}.part")
    assert part is not None
    with pytest.raises(Unreachable, match="source 0: for 0 s no other process has come further"):
        cache.open(wanted(0), filling(0), stopped)
    stopped.set()
    with pytest.raises(Stopped):
        cache.open(wanted(0), filling(0), stopped)
    part.close()
    assert read(cache, 0) == DATA[0]


def test_who_waited_shares_the_failure_and_who_comes_later_tries_again(access: Access) -> None:
    cache, calls = Cache(access), []

    def failing(part: Part) -> None:
        calls.append(0)
        time.sleep(0.1)
        raise Unreachable("the server is on fire")

    def fetch(_: int) -> str:
        with pytest.raises(Unreachable) as caught:
            cache.open(wanted(0), failing, NEVER)
        return str(caught.value)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(fetch, range(8))) == {"the server is on fire"}
    assert calls == [0]
    assert read(cache, 0) == DATA[0]


def test_a_note_that_cannot_be_written_hides_no_failure(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(access)

    def failing(part: Part) -> None:
        monkeypatch.setattr(Path, "write_text", full)
        raise Unreachable("the server is on fire")

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(Unreachable, match="the server is on fire"):
        cache.open(wanted(0), failing, NEVER)


def test_parts_that_nobody_finishes_are_removed_in_the_end(access: Access) -> None:
    cache = Cache(access)
    for number in (0, 1):
        part = Part.claim(access.folder / f"{wanted(number).name}.part")
        assert part is not None
        part.restart("tag")
        part.write(b"x")
        part.close()
    old = time.time() - 2 * STALE
    os.utime(access.folder / f"{wanted(0).name}.part", (old, old))
    read(cache, 2)
    assert {file.suffix for file in access.folder.glob(f"{wanted(0).name[:64]}*")} == set()
    assert {file.suffix for file in access.folder.glob(f"{wanted(1).name[:64]}*")} == {".part", ".note"}


def test_a_note_that_was_cut_is_no_note(access: Access) -> None:
    path = private_folder(access.folder) / "a.tar.part"
    part = Part.claim(path)
    assert part is not None
    part.restart("tag")
    part.write(b"x")
    part.close()
    path.with_suffix(".note").write_text('{"validator": "t')
    again = Part.claim(path)
    assert again is not None
    assert (again.size, again.validator) == (1, "")  # without a validator nothing is resumed
    again.close()


def test_a_part_that_got_its_name_before_it_was_locked_is_not_claimed(
    access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = private_folder(access.folder) / "a.tar.part"

    def late(descriptor: int, kind: int) -> bool:
        path.rename(access.folder / "a.tar")
        return True

    monkeypatch.setattr("data_pipeline.remote.part.lock", late)
    assert Part.claim(path) is None


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    own = private_folder(tmp_path / "new" / "cache")
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o770)
    with pytest.raises(
        ValueError, match=r"data\.cache=.*cache must be a folder of this user's own .*got mode 0770"
    ):
        Cache(Access(str(own)))
    own.chmod(0o700)
    (tmp_path / "link").symlink_to(own)
    with pytest.raises(ValueError, match="must be a folder of this user's own"):
        Cache(Access(str(tmp_path / "link")))
    if os.getuid() == 0:
        os.chown(own, 12345, 12345)
        with pytest.raises(ValueError, match="of user 12345: name another one"):
            Cache(Access(str(own)))


def test_a_planted_link_is_not_followed(access: Access, tmp_path: Path) -> None:
    cache, victim = Cache(access), tmp_path / "victim"
    victim.write_bytes(b"precious")
    (access.folder / f"{wanted(0).name}.part").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        read(cache, 0)
    assert victim.read_bytes() == b"precious"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2.5 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2560k,mode=0700", "tmpfs", folder], capture_output=True, check=False
    )
    if mount.returncode:
        assert not os.environ.get("CI"), mount.stderr
        pytest.skip(f"no small disk: mounting needs root ({mount.stderr.decode().strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_made_room_on(access: Access, small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    here = replace(access, cache=str(small_disk))
    cache = Cache(here)
    for number in range(4):
        assert read(cache, number) == DATA[number]
    assert kept(here) == {2, 3}
    assert "is full: evicting for source 2" in caplog.text


def test_a_disk_that_stays_full_is_named(access: Access, small_disk: Path) -> None:
    (small_disk / "of-somebody").mkdir()
    (small_disk / "of-somebody" / "else").write_bytes(bytes(2 * SIZE))
    cache = Cache(replace(access, cache=str(small_disk)))
    with pytest.raises(
        OSError,
        match=r"disk is full: source 0 needs \d+ bytes more in data\.cache=.*disk, where \d+ are free with",
    ):
        read(cache, 0)
    assert not list(small_disk.glob("*.part"))


# Processes.


def started(count: int, function: Callable[..., None], *arguments: object) -> list[BaseProcess]:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=function, args=(rank, *arguments), daemon=True) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def shard(server: Server, number: int) -> RemoteShard:
    digest = hashlib.sha256(DATA[number]).hexdigest()
    return RemoteShard(Url.parse(f"{server.url}/{number}.tar"), digest, SIZE, digest)


def fetch_all(rank: int, access: Access, shards: list[RemoteShard]) -> None:
    """Each process fetches all shards, and ends with status 0 if each had the right bytes."""
    files = Files(access)
    for turn in range(len(shards)):
        each = shards[(rank + turn) % len(shards)]
        descriptor = files.open(each, NEVER)
        data = os.pread(descriptor, SIZE + 1, 0)
        assert hashlib.sha256(data).hexdigest() == each.sha256
        os.close(descriptor)
        assert used(access) <= access.cache_bytes
    os._exit(0)


def test_the_others_go_on_where_a_killed_process_stopped(server: Server, site: Path, access: Access) -> None:
    (site / "0.tar").write_bytes(DATA[0])
    server.faults["/0.tar"].append(hang(SIZE // 2))
    patient = replace(access, timeout=10)
    part = access.folder / f"{wanted(0).name}.part"
    first = started(1, fetch_all, patient, [shard(server, 0)])[0]
    until(lambda: part.exists() and part.stat().st_size == SIZE // 2)
    others = started(3, fetch_all, patient, [shard(server, 0)])
    time.sleep(0.2)
    assert len(server.asked) == 1
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    for process in others:
        process.join(10)
        assert process.exitcode == 0
    assert server.ranges("/0.tar") == ["", f"bytes={SIZE // 2}-"]
    assert server.sent["/0.tar"] == SIZE


def test_four_processes_keep_to_the_bound_together(server: Server, site: Path, access: Access) -> None:
    for number, data in enumerate(DATA):
        (site / f"{number}.tar").write_bytes(data)
    bounded = replace(access, cache_bytes=3 * SIZE, timeout=10)
    processes = started(4, fetch_all, bounded, [shard(server, number) for number in range(8)])
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert 2 * SIZE < used(bounded) <= 3 * SIZE


def test_errors_of_the_server_pass_through(server: Server, site: Path, access: Access) -> None:
    (site / "0.tar").write_bytes(DATA[0])
    server.faults["/0.tar"].extend([status(500), instead(DATA[1]), instead(DATA[1])])
    with pytest.raises(Unreachable, match=rf"{server.url}/0\.tar has sha256"):
        Files(access).open(shard(server, 0), NEVER)
    os.close(Files(access).open(shard(server, 0), NEVER))


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
