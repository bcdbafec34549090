"""Packing: a source of samples to tar shards with their indexes and manifest, atomically and resumably."""

from __future__ import annotations

import fcntl
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.atomic import PARTIAL, sync_folder
from data_pipeline.config import OnError
from data_pipeline.crew import Progress, Summed, carried_out, silent
from data_pipeline.index import index_path
from data_pipeline.manifest import MANIFEST, Manifest, ShardEntry
from data_pipeline.packer import Packed, Packer, Stretch
from data_pipeline.shards import UNFINISHED
from data_pipeline.sources import Source
from data_pipeline.verification import problems

LOCK = "packing.lock"
# What packing leaves behind where it is killed, and nothing of anybody else's.
_PARTIAL = re.compile(
    rf"(shard-\d{{6,}}\.(tar|json|skipped)|{re.escape(MANIFEST)}|{re.escape(UNFINISHED)})\.[0-9a-f]{{8}}"
    rf"{re.escape(PARTIAL)}"
)
_SKIPPED = re.compile(r"shard-\d{6,}\.skipped")


@dataclass(frozen=True)
class Packing:
    """What ``write_shards`` found and did; ``written`` is 0 when the folder was complete already."""

    manifest: Manifest
    written: int
    kept: int


def write_shards(
    source: Source,
    out: Path,
    *,
    samples_per_shard: int = 1000,
    workers: int = 1,
    on_error: OnError = OnError["raise"],
    repair: bool = False,
    progress: Progress = silent,
) -> Packing:
    """Pack every sample of ``source`` into ``out/shard-000000.tar``, … and list them in ``manifest.json``.

    Each file appears whole, the manifest last. Killed at any point and run again, it keeps the shards that
    are whole (by checksum) and ends with the same bytes, with any number of workers; a finished folder is left as
    it is, save for shards that are missing, of another length or without their index: those are packed again, and
    must be what the manifest says. One packing per folder at a time.

    Args:
        workers: processes, each at one shard at a time. With one it is this process.
        on_error: skip images that cannot be packed, which the manifest then names, or stop at the first.
        repair: of a finished folder read every byte, and pack again what is damaged too.
        progress: called with (samples done, samples in all), after every sample with one worker.

    Raises:
        ValueError: the folder holds a different preparation or unknown shards, or another process is packing into
            it; what the source refuses.
        ChildProcessError: a worker died; names its shard.
    """
    plan = _plan(source, samples_per_shard)
    out.mkdir(parents=True, exist_ok=True)
    packer = Packer(source, skip=on_error is OnError.skip)
    with _alone(out):
        if (out / MANIFEST).exists():
            return _finished(packer, out, plan, workers, repair, progress)
        if repair:
            raise ValueError(f"{out} holds no finished packing ({MANIFEST}) to be repaired: pack it")
        return _unfinished(packer, out, plan, workers, progress)


def agreed_samples_per_shard(out: Path) -> int | None:
    """What an earlier packing into this folder goes by, finished or not; None if there was none."""
    for name in (MANIFEST, UNFINISHED):
        if (out / name).exists():
            return Manifest.read(out / name).samples_per_shard
    return None


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """No other process packs into this folder meanwhile. The system takes the lock back when this one ends."""
    path = out / LOCK
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))
        except BlockingIOError:
            mine = False  # nor is it where the one before has just taken the file away
        if not mine:
            raise ValueError(f"{out} is being packed by another process: wait for it, or give another folder")
        try:
            yield
        finally:
            path.unlink()


def _stretches(out: Path, plan: Manifest, total: int) -> list[Stretch]:
    return [
        Stretch(out / f"shard-{number:06d}.tar", start, min(start + plan.samples_per_shard, total))
        for number, start in enumerate(range(0, total, plan.samples_per_shard))
    ]


def _packed(
    packer: Packer, out: Path, stretches: Sequence[Stretch], workers: int, progress: Progress
) -> list[Packed]:
    """Every stretch, in order."""
    tell = Summed(progress, sum(map(len, stretches)))
    try:
        packed = dict(carried_out(packer, stretches, workers=workers, tell=tell))
    finally:
        _remove(out, _PARTIAL)  # of a worker that was ended in the middle
    return [packed[number] for number in range(len(stretches))]


def _plan(source: Source, samples_per_shard: int) -> Manifest:
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard must be at least 1, got {samples_per_shard}")
    return Manifest(
        source=source.description,
        preparation=source.preparation(),
        class_names=source.class_names,
        channels=source.channels,
        resolution=source.resolution,
        samples_per_shard=samples_per_shard,
    )


def _listed(plan: Manifest, source: Source, packed: list[Packed]) -> Manifest:
    skipped = tuple(pair for each in packed for pair in each.skipped)
    entries = tuple(each.entry for each in packed if each.entry is not None)
    if not entries:
        name, reason = next(iter(skipped), ("it", "empty"))
        raise ValueError(f"{source.description}: no image can be packed, as {name}: {reason}")
    formats: Counter[str] = sum((Counter(each.formats) for each in packed), Counter())
    return replace(plan, shards=entries, formats=dict(sorted(formats.items())), skipped=skipped)


def _unfinished(packer: Packer, out: Path, plan: Manifest, workers: int, progress: Progress) -> Packing:
    _claim(out, plan)
    packed = _packed(packer, out, _stretches(out, plan, len(packer.source)), workers, progress)
    manifest = _listed(plan, packer.source, packed)
    manifest.write(out / MANIFEST)
    _clear(out)
    written = sum(each.written for each in packed)
    return Packing(manifest, written, len(manifest.shards) - written)


def _finished(
    packer: Packer, out: Path, plan: Manifest, workers: int, repair: bool, progress: Progress
) -> Packing:
    manifest = Manifest.read(out / MANIFEST)
    _check_same(out, manifest, plan)
    entries = {entry.name: entry for entry in manifest.shards}
    bad = problems(out, workers=workers).keys() if repair else _lost(out, manifest.shards)
    stretches = [
        each for each in _stretches(out, plan, len(packer.source)) if each.shard.name in bad & entries.keys()
    ]
    for stretch in stretches:
        index_path(stretch.shard).unlink(missing_ok=True)  # as of a shard that was begun
    for stretch, made in zip(stretches, _packed(packer, out, stretches, workers, progress), strict=True):
        if made.entry != entries[stretch.shard.name]:
            raise ValueError(
                f"{stretch} was packed again and is not what {out / MANIFEST} says: a library that encodes "
                "images, or the source itself, has changed since: pack all of it into another folder"
            )
    _clear(out)
    return Packing(manifest, written=len(stretches), kept=len(entries) - len(stretches))


def _lost(out: Path, entries: Sequence[ShardEntry]) -> Set[str]:
    """The names of shards that are missing, of another length or without their index."""
    with os.scandir(out) as files:  # much faster than asking for each by its path
        sizes = {file.name: file.stat().st_size for file in files if file.is_file()}
    return {
        entry.name
        for entry in entries
        if sizes.get(entry.name) != entry.tar_bytes or index_path(Path(entry.name)).name not in sizes
    }


def _claim(out: Path, plan: Manifest) -> None:
    """Write down what is being packed before the first shard, to compare a resumed packing with."""
    if (out / UNFINISHED).exists():
        _check_same(out, Manifest.read(out / UNFINISHED), plan)
    elif any(out.glob("*.tar")):
        raise ValueError(f"{out} holds shards of unknown origin (no {MANIFEST}): pack into an empty folder")
    else:
        plan.write(out / UNFINISHED)
    _remove(out, _PARTIAL)


def _clear(out: Path) -> None:
    """Remove what only an unfinished packing needs."""
    _remove(out, _SKIPPED)
    (out / UNFINISHED).unlink(missing_ok=True)
    sync_folder(out)


def _remove(out: Path, names: re.Pattern[str]) -> None:
    for file in out.iterdir():
        if names.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _check_same(out: Path, there: Manifest, plan: Manifest) -> None:
    differences = plan.differences(there)
    if differences:
        raise ValueError(
            f"{out} holds a different preparation ({'; '.join(differences)}): "
            "pack into another folder, or remove this one"
        )
