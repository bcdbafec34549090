"""python -m launch.pack source=… out=…: images into indexed WebDataset shards; verify DIR and describe DIR."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door

if TYPE_CHECKING:
    from configs.packing import PackConfig
    from data_pipeline.sources import Source

register()

INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended
SOON = 30  # seconds to go, below which no time is told
MOST_NAMED = 5  # of what was skipped; the manifest has them all


@hydra.main(version_base="1.3", config_path="../configs", config_name="pack")
@door
def main(config: DictConfig) -> int:
    """Packs, verifies, repairs or describes; status 1 where a shard is not what was packed."""
    from configs.runs import to_value

    chosen = to_value(config)
    try:
        return {"pack": pack, "repair": pack, "verify": verify, "describe": describe}[chosen.action.name](chosen)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def pack(chosen: PackConfig) -> int:
    """Packs each part of the source, or what of it is damaged, and says what lies where."""
    from launch.sources import UNITS, sources

    unit = UNITS.get(chosen.source.name if chosen.source else "", "key")
    with shown(f"reading {unit}s", unit) as progress:
        parts = sources(chosen, progress)
    for name, source in parts.items():
        pack_part(chosen, source, Path(chosen.out) / name)
    return 0


def pack_part(chosen: PackConfig, source: Source, out: Path) -> None:
    """One part to its folder, by a plan that is told first."""
    from data_pipeline.write import write_shards

    samples_per_shard = planned(chosen, source, out)
    with shown(str(out), "img", samples_per_shard) as progress:
        packing = write_shards(
            source,
            out,
            samples_per_shard=samples_per_shard,
            workers=workers(chosen),
            on_error=chosen.on_error,
            repair=chosen.action.name == "repair",
            progress=progress,
        )
    manifest = packing.manifest
    print(f"{out}: {manifest.samples} images in {len(manifest.shards)} shards", end="")
    print(f" ({packing.written} written, {packing.kept} were there)")
    if manifest.skipped:
        print(f"{out}: {len(manifest.skipped)} images could not be packed and were skipped:")
        for name, reason in manifest.skipped[:MOST_NAMED]:
            print(f"  {name}: {reason}")


def planned(chosen: PackConfig, source: Source, out: Path) -> int:
    """How many samples a shard gets: as given, as in what is there already, or as is best."""
    from data_pipeline.planner import plan, size
    from data_pipeline.write import agreed_samples_per_shard

    if chosen.samples_per_shard is not None and chosen.samples_per_shard < 1:
        raise ValueError(f"samples_per_shard must be at least 1, got {chosen.samples_per_shard}")
    agreed = agreed_samples_per_shard(out)
    if agreed is not None:
        return agreed if chosen.samples_per_shard is None else chosen.samples_per_shard
    best = plan(source, chosen.samples_per_shard, chosen.ranks, chosen.loaders)
    print(f"{out}: planned: {best}")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if best.bytes > free:
        raise ValueError(
            f"{out} has room for {size(free)}, and about {size(best.bytes)} are to be packed: make more"
        )
    return best.samples_per_shard


def verify(chosen: PackConfig) -> int:
    """Reads every byte; names every shard that is damaged, missing or a stranger."""
    from data_pipeline.verification import verify

    bad = 0
    for part in parts(Path(chosen.out)):
        with shown(str(part), "shard") as progress:
            problems = verify(part, workers=workers(chosen), progress=progress)
        print(*(problems or [f"{part}: whole"]), sep="\n")
        bad += len(problems)
    return int(bad > 0)


def describe(chosen: PackConfig) -> int:
    """A contact sheet of each part, and what it holds; the last line is one JSON object."""
    found, told = parts(Path(chosen.out)), {}
    if chosen.sheet is not None and len(found) > 1:
        raise ValueError(
            f"sheet={chosen.sheet} names one file, and {chosen.out} has {len(found)} parts "
            f"({', '.join(part.name for part in found)}): describe one of them"
        )
    for part in found:
        told[part.name] = described(chosen, part)
        print(*(f"{part}: {name}: {value}" for name, value in told[part.name].items()), sep="\n")
    print(json.dumps(told if len(told) > 1 else next(iter(told.values())), ensure_ascii=False))
    return 0


def described(chosen: PackConfig, part: Path) -> dict[str, object]:
    """What a folder of shards holds, and where its contact sheet is."""
    from data_pipeline.description import contents, described, sampled, write_contact_sheet
    from data_pipeline.shards import ShardSet

    shards = ShardSet.open(str(part))
    channels = chosen.channels or (shards.manifest.channels if shards.manifest else 3)
    with shown(str(part), "shard") as progress:
        held = contents(shards, workers=workers(chosen), progress=progress)
    sheet = Path(chosen.sheet) if chosen.sheet else part / "contact_sheet.png"
    try:
        write_contact_sheet(shards, sheet, chosen.tiles, channels)
    except OSError as error:
        raise OSError(f"the contact sheet cannot be written ({error}): give another place, sheet=…") from error
    return {**described(held, sampled(shards, chosen.decoded, channels), shards), "sheet": str(sheet)}


def parts(out: Path) -> list[Path]:
    """The folders of shards: `out` itself, or those below it that a source with splits was packed to."""
    from data_pipeline.manifest import MANIFEST
    from data_pipeline.shards import UNFINISHED

    inside = sorted({path.parent for name in (MANIFEST, UNFINISHED) for path in out.glob(f"*/{name}")})
    itself = any(out.glob("*.tar")) or any((out / name).exists() for name in (MANIFEST, UNFINISHED))
    return [out] if itself or not inside else inside


def workers(chosen: PackConfig) -> int:
    """How many processes share the work."""
    from data_pipeline.crew import cores

    return chosen.workers or cores()


@contextmanager
def shown(what: str, unit: str, enough: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar where there is a terminal; and, once the first `enough` are done, how long the rest will take.

    So many at once were there already, and tell nothing of how fast the others come.
    """
    from tqdm import tqdm

    started, begin, last = time.monotonic(), 0, 0
    with tqdm(desc=what, unit=unit, disable=None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            nonlocal enough, started, begin, last
            if enough is not None and done - last >= enough > 1:
                started, begin = time.monotonic(), done
            last = done
            bar.total = total
            bar.update(done - bar.n)
            if enough is not None and done - begin >= enough:
                enough = None
                rate = (done - begin) / (time.monotonic() - started)
                if (total - done) / rate > SOON:
                    left = timedelta(seconds=int((total - done) / rate))
                    bar.write(f"{what}: {rate:.0f} {unit}/s, about {left} to go")

        yield advance


def spelled_out(arguments: list[str]) -> list[str]:
    """`verify DIR` and `describe DIR` as Hydra has them: action=verify out=DIR."""
    if not arguments or arguments[0] not in ("verify", "describe"):
        return arguments
    first = [f"action={arguments[0]}"]
    if len(arguments) > 1 and "=" not in arguments[1] and not arguments[1].startswith("-"):
        escaped = arguments[1].replace("\\", "\\\\").replace("'", "\\'")
        return [*first, f"out='{escaped}'", *arguments[2:]]
    return [*first, *arguments[1:]]


if __name__ == "__main__":
    sys.argv[1:] = spelled_out(sys.argv[1:])
    main()
