"""Packing: a source of samples to tar shards with their indexes and manifest, atomically and resumably."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.atomic import PARTIAL, atomically, sync_folder
from data_pipeline.index import ShardIndex, file_sha256, index_path, scan_tar
from data_pipeline.manifest import MANIFEST, Manifest, ShardEntry
from data_pipeline.shards import UNFINISHED, ShardSet
from data_pipeline.sources import Source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packing:
    """What ``write_shards`` found and did; ``written`` is 0 when the folder was complete already."""

    manifest: Manifest
    written: int
    kept: int


def _silent(done: int, total: int) -> None:
    pass


def write_shards(
    source: Source,
    out: Path,
    *,
    samples_per_shard: int = 1000,
    progress: Callable[[int, int], None] = _silent,
) -> Packing:
    """Pack every sample of ``source`` into ``out/shard-000000.tar``, … and list them in ``manifest.json``.

    Each file appears whole, the manifest last. Killed at any point and run again, it keeps the shards that
    are whole (by checksum) and ends with the same bytes; a finished folder is left as it is. One packer per
    folder.

    Args:
        progress: called with (samples done, samples in all) after every sample.

    Raises:
        ValueError: the folder holds a different preparation or unknown shards; what the source refuses.
    """
    plan = _plan(source, samples_per_shard)
    out.mkdir(parents=True, exist_ok=True)
    if (out / MANIFEST).exists():
        return _finished(out, plan)
    _claim(out, plan)
    entries, written, total = [], 0, len(source)
    for number, start in enumerate(range(0, total, samples_per_shard)):
        rows = range(start, min(start + samples_per_shard, total))
        shard = out / f"shard-{number:06d}.tar"
        index = _whole(shard, len(rows))
        if index is None:
            index = _write_shard(source, rows, shard, progress)
            written += 1
        else:
            progress(rows.stop, total)
        entries.append(ShardEntry(shard.name, len(index), index.tar_bytes, index.sha256))
    manifest = replace(plan, shards=tuple(entries))
    manifest.write(out / MANIFEST)
    (out / UNFINISHED).unlink()
    sync_folder(out)
    return Packing(manifest, written, len(entries) - written)


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


def _finished(out: Path, plan: Manifest) -> Packing:
    manifest = Manifest.read(out / MANIFEST)
    _check_same(out, manifest, plan)
    ShardSet.open(str(out))  # refuses shards that are missing or cut
    (out / UNFINISHED).unlink(missing_ok=True)
    return Packing(manifest, written=0, kept=len(manifest.shards))


def _claim(out: Path, plan: Manifest) -> None:
    """Write down what is being packed before the first shard, to compare a resumed packing with."""
    if (out / UNFINISHED).exists():
        _check_same(out, Manifest.read(out / UNFINISHED), plan)
    elif any(out.glob("*.tar")):
        raise ValueError(f"{out} holds shards of unknown origin (no {MANIFEST}): pack into an empty folder")
    else:
        plan.write(out / UNFINISHED)
    for partial in out.glob(f"*{PARTIAL}"):
        partial.unlink()


def _check_same(out: Path, there: Manifest, plan: Manifest) -> None:
    differences = plan.differences(there)
    if differences:
        raise ValueError(
            f"{out} holds a different preparation ({'; '.join(differences)}): "
            "pack into another folder, or remove this one"
        )


def _whole(shard: Path, samples: int) -> ShardIndex | None:
    """The index of a shard that an earlier run finished, or None if it has to be written."""
    if not (shard.exists() and index_path(shard).exists()):
        return None
    try:
        index = ShardIndex.read(shard)
    except ValueError as error:
        log.warning("packing %s again: %s", shard, error)
        return None
    if len(index) != samples or file_sha256(shard) != index.sha256:
        log.warning("packing %s again: its checksum is not that of its index", shard)
        return None
    return index


def _write_shard(source: Source, rows: range, shard: Path, progress: Callable[[int, int], None]) -> ShardIndex:
    from webdataset import TarWriter  # takes a second to import

    index_path(shard).unlink(missing_ok=True)  # never an old index beside a new shard
    keys = []
    # No times, fixed names: the same samples give the same bytes.
    with atomically(shard) as file, TarWriter(file, encoder=False, mtime=0, user="", group="") as tar:
        for row in rows:
            sample = source.sample(row)
            tar.write(sample)
            keys.append(sample["__key__"])
            progress(row + 1, len(source))
    index = scan_tar(shard)
    if index.keys != tuple(keys):
        raise ValueError(f"{source.description}: keys must be distinct and have no dots, got {keys[0]!r}, …")
    index.write()
    return index
