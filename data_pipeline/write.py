"""Packing: a source of samples to tar shards with their indexes and manifest, atomically and resumably."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.atomic import PARTIAL, sync_folder
from data_pipeline.config import OnError
from data_pipeline.crew import carried_out
from data_pipeline.manifest import MANIFEST, Manifest
from data_pipeline.packer import Packed, Packer, Stretch, skipped_path
from data_pipeline.shards import UNFINISHED, ShardSet
from data_pipeline.sources import Source


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
    workers: int = 1,
    on_error: OnError = OnError["raise"],
    progress: Callable[[int, int], None] = _silent,
) -> Packing:
    """Pack every sample of ``source`` into ``out/shard-000000.tar``, … and list them in ``manifest.json``.

    Each file appears whole, the manifest last. Killed at any point and run again, it keeps the shards that
    are whole (by checksum) and ends with the same bytes, with any number of workers; a finished folder is left as
    it is. One packing per folder.

    Args:
        workers: processes, each at one shard at a time. With one it is this process.
        on_error: skip images that cannot be packed, which the manifest then names, or stop at the first.
        progress: called with (samples done, samples in all), after every sample with one worker.

    Raises:
        ValueError: the folder holds a different preparation or unknown shards; what the source refuses.
        ChildProcessError: a worker died; names its shard.
    """
    plan = _plan(source, samples_per_shard)
    out.mkdir(parents=True, exist_ok=True)
    if (out / MANIFEST).exists():
        return _finished(out, plan)
    _claim(out, plan)
    packed = _packed(source, out, plan, workers, on_error, progress)
    manifest = _listed(plan, source, packed)
    manifest.write(out / MANIFEST)
    _clear(out)
    written = sum(each.written for each in packed)
    return Packing(manifest, written, len(manifest.shards) - written)


def agreed_samples_per_shard(out: Path) -> int | None:
    """What an earlier packing into this folder goes by, finished or not; None if there was none."""
    for name in (MANIFEST, UNFINISHED):
        if (out / name).exists():
            return Manifest.read(out / name).samples_per_shard
    return None


def _packed(
    source: Source,
    out: Path,
    plan: Manifest,
    workers: int,
    on_error: OnError,
    progress: Callable[[int, int], None],
) -> list[Packed]:
    """Every shard, in order."""
    total, done = len(source), 0

    def tell(samples: int) -> None:
        nonlocal done
        done += samples
        progress(done, total)

    stretches = [
        Stretch(out / f"shard-{number:06d}.tar", start, min(start + plan.samples_per_shard, total))
        for number, start in enumerate(range(0, total, plan.samples_per_shard))
    ]
    packer = Packer(source, skip=on_error is OnError.skip)
    try:
        packed = dict(carried_out(packer, stretches, workers=workers, tell=tell))
    finally:
        _clear_partials(out)  # of a worker that was ended in the middle
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
    skipped = {name: reason for each in packed for name, reason in each.skipped.items()}
    entries = tuple(each.entry for each in packed if each.entry is not None)
    if not entries:
        name, reason = next(iter(skipped.items()), ("it", "empty"))
        raise ValueError(f"{source.description}: no image can be packed, as {name}: {reason}")
    formats: Counter[str] = sum((Counter(each.formats) for each in packed), Counter())
    return replace(plan, shards=entries, formats=dict(sorted(formats.items())), skipped=skipped)


def _finished(out: Path, plan: Manifest) -> Packing:
    manifest = Manifest.read(out / MANIFEST)
    _check_same(out, manifest, plan)
    ShardSet.open(str(out))  # refuses shards that are missing or cut
    _clear(out)
    return Packing(manifest, written=0, kept=len(manifest.shards))


def _claim(out: Path, plan: Manifest) -> None:
    """Write down what is being packed before the first shard, to compare a resumed packing with."""
    if (out / UNFINISHED).exists():
        _check_same(out, Manifest.read(out / UNFINISHED), plan)
    elif any(out.glob("*.tar")):
        raise ValueError(f"{out} holds shards of unknown origin (no {MANIFEST}): pack into an empty folder")
    else:
        plan.write(out / UNFINISHED)
    _clear_partials(out)


def _clear_partials(out: Path) -> None:
    for partial in out.glob(f"*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def _clear(out: Path) -> None:
    """Remove what only an unfinished packing needs."""
    for leftover in [*out.glob(skipped_path(Path("*.tar")).name), out / UNFINISHED]:
        leftover.unlink(missing_ok=True)
    sync_folder(out)


def _check_same(out: Path, there: Manifest, plan: Manifest) -> None:
    differences = plan.differences(there)
    if differences:
        raise ValueError(
            f"{out} holds a different preparation ({'; '.join(differences)}): "
            "pack into another folder, or remove this one"
        )
