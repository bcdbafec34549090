"""Verification: every byte of a folder of shards against its manifest and its indexes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.crew import Progress, Summed, Tell, carried_out, silent
from data_pipeline.decode import IMAGE_EXTENSIONS, open_image
from data_pipeline.index import ShardIndex, file_sha256, index_path, scan_tar
from data_pipeline.manifest import MANIFEST, Manifest, ShardEntry
from data_pipeline.read import ShardReader
from data_pipeline.shards import HOW_TO_MAKE_SHARDS, UNFINISHED

MOST_KEYS = 5  # that are named of one shard


@dataclass(frozen=True)
class Listed:
    """A shard that is there, and what the manifest says of it, if there is one."""

    shard: Path
    entry: ShardEntry | None

    def __str__(self) -> str:
        return f"shard {self.shard}"


def verify(folder: Path, *, workers: int = 1, progress: Progress = silent) -> list[str]:
    """Read every byte of a folder of shards; one line per problem that is found, naming the shard.

    Each shard is scanned anew and compared with its index and with the manifest, checksums included. Of one whose
    bytes have changed, the samples that are seen to be hit are named too.

    Args:
        workers: processes, each at one shard at a time.
        progress: called with (shards done, shards in all).

    Raises:
        ValueError: the folder holds no manifest and no shards.
    """
    found = problems(folder, workers=workers, progress=progress)
    return _unfinished(folder) + [problem for name in sorted(found) for problem in found[name]]


def problems(folder: Path, *, workers: int = 1, progress: Progress = silent) -> dict[str, list[str]]:
    """The same by the names of the shards that have one."""
    listed: dict[str, ShardEntry] = {}
    if (folder / MANIFEST).is_file():
        listed = {entry.name: entry for entry in Manifest.read(folder / MANIFEST).shards}
    present = {path.name for path in folder.glob("*.tar")}
    if not listed and not present and not (folder / UNFINISHED).is_file():
        raise ValueError(f"{folder} holds neither {MANIFEST} nor *.tar shards: {HOW_TO_MAKE_SHARDS}")
    found = {name: [f"shard {folder / name} is missing"] for name in listed.keys() - present}
    if listed:
        found |= {name: [f"shard {folder / name} is not in {MANIFEST}"] for name in present - listed.keys()}
    tasks = [Listed(folder / name, listed.get(name)) for name in sorted(present - found.keys())]
    for number, lines in carried_out(_problems, tasks, workers=workers, tell=Summed(progress, len(tasks))):
        if lines:
            found[tasks[number].shard.name] = lines
    return found


def _unfinished(folder: Path) -> list[str]:
    if (folder / UNFINISHED).is_file() and not (folder / MANIFEST).is_file():
        return [f"{folder} was not packed to its end: run the same packing again"]
    return []


def _problems(listed: Listed, tell: Tell) -> list[str]:
    try:
        return _of_one(listed.shard, listed.entry)
    except (ValueError, OSError) as error:
        return [f"{listed}: {error}"]
    finally:
        tell(1)


def _of_one(shard: Path, entry: ShardEntry | None) -> list[str]:
    if entry is not None and (found := file_sha256(shard)) != entry.sha256:
        return [f"shard {shard} has sha256 {found}, {MANIFEST} says {entry.sha256}: {_extent(shard, entry)}"]
    if not index_path(shard).is_file():
        return [f"shard {shard} has no index"]
    scanned = scan_tar(shard)
    if entry is not None and (entry.samples, entry.tar_bytes) != (len(scanned), scanned.tar_bytes):
        return [
            f"shard {shard} has {len(scanned)} samples in {scanned.tar_bytes} bytes, "
            f"{MANIFEST} says {entry.samples} in {entry.tar_bytes}"
        ]
    if not ShardIndex.read(shard).same_as(scanned):
        return [f"shard {shard} disagrees with its index {index_path(shard).name}"]
    return []


def _extent(shard: Path, entry: ShardEntry) -> str:
    """How far the damage can be told: whose image no longer decodes, or whose place has changed."""
    length = shard.stat().st_size
    if length != entry.tar_bytes:
        return f"it has {length} bytes and not {entry.tar_bytes}"
    if not index_path(shard).is_file():
        return "it has no index that would tell which samples are hit"
    try:
        index = ShardIndex.read(shard)
    except ValueError as error:
        return str(error)
    reader = ShardReader()
    hit = [key for row, key in enumerate(index.keys) if not _decodes(reader, index, row)]
    reader.close()
    if not hit:
        return "every image still decodes, so the damage is in pixels, in labels or between the samples"
    more = f" and {len(hit) - MOST_KEYS} more" if len(hit) > MOST_KEYS else ""
    return f"damaged at the keys {', '.join(hit[:MOST_KEYS])}{more}"


def _decodes(reader: ShardReader, index: ShardIndex, row: int) -> bool:
    """Whether every image of a sample lies where the index says and decodes."""
    try:
        for extension in IMAGE_EXTENSIONS:
            member = index.member(row, extension)
            if member is not None:
                data = reader.read(member)
                open_image(data, channels=3)
                if extension == "png" and not _checksums_hold(data):
                    return False
    except ValueError:
        return False
    return True


def _checksums_hold(png: bytes) -> bool:
    """Whether each chunk of a PNG that decodes has its own checksum; Pillow does not look at those of pixels."""
    place = len(b"\x89PNG\r\n\x1a\n")
    while place < len(png):
        end = place + 8 + int.from_bytes(png[place : place + 4])
        if zlib.crc32(png[place + 4 : end]) != int.from_bytes(png[end : end + 4]):
            return False
        if png[place + 4 : place + 8] == b"IEND":
            break  # what follows is no chunk
        place = end + 4
    return True
