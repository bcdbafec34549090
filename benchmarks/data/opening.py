"""Opening 10,000 shards of 3 M samples in a fresh process, its memory, and seeking to random positions."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from data_pipeline.stream import DataStream

EACH = 300  # samples of a shard
SEEKS = 20
TARGETS = (
    "Targets: opened in 2 s, with 200 MB at most, and a seek in 100 ms and one shard.\n"
    "The imports alone, torch before all, take about 235 MB, so 200 MB can only hold for what\n"
    "opening adds to them (+ opening); the process as a whole (in all) takes more.\n"
    "A seek loads eight images, in most rows of eight shards; a shard: reading the index of one."
)


def main() -> None:
    """A row for each kind of order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=10_000)
    options = parser.parse_args()
    print(
        "| window | lanes | opened | imports | + opening | + seeks | in all "
        "| seek, middle | seek, worst | a shard |"
    )
    print("|" + "---|" * 10)
    with TemporaryDirectory() as folder:
        make(Path(folder), options.shards)
        for window, lanes in ((0, 1), (0, 64), (16, 1), (16, 64)):
            with get_context("spawn").Pool(1) as fresh:
                print(fresh.apply(measured, (folder, window, lanes)), flush=True)
    print(f"{options.shards:,} shards, {options.shards * EACH:,} samples. {TARGETS}")


def make(folder: Path, shards: int) -> None:
    """A set of shards that are all one, linked under many names, so that any of them can be read."""
    from dataclasses import replace

    from PIL import Image

    from data_pipeline.decode import encode_png
    from data_pipeline.folder import Folder
    from data_pipeline.manifest import MANIFEST, Manifest
    from data_pipeline.preparation import Preparation
    from data_pipeline.write import write_shards

    images, one = folder / "images", folder / "one"
    images.mkdir()
    for number in range(EACH):
        (images / f"{number:04d}.png").write_bytes(encode_png(Image.new("L", (8, 8), number % 256)))
    entry = write_shards(Folder(images, Preparation(channels=1)), one, samples_per_shard=EACH).manifest.shards[0]
    entries = [replace(entry, name=f"shard-{number:06d}.tar") for number in range(shards)]
    for each in entries[1:]:
        for suffix in (".tar", ".json"):
            os.link((one / entry.name).with_suffix(suffix), (one / each.name).with_suffix(suffix))
    replace(Manifest.read(one / MANIFEST), shards=tuple(entries)).write(one / MANIFEST)


def measured(folder: str, window: int, lanes: int) -> str:
    """The row of one kind of order, in this process."""
    from data_pipeline.config import DataConfig
    from data_pipeline.stream import DataStream

    imports = peak()
    config = DataConfig(f"{folder}/one", resolution=8, channels=1, batch=64, window=window, lanes=lanes, workers=0)
    start = time.perf_counter()
    stream = DataStream(config, seed=0)
    opened, opening = time.perf_counter() - start, peak()
    cursors = np.random.default_rng(0).integers(0, 100 * len(stream), SEEKS).tolist()
    seconds = [seek(stream, cursor) for cursor in cursors]
    seeking = peak()
    start = time.perf_counter()
    for number in range(-SEEKS, 0):
        stream.shards.index(len(stream.shards.shards) + number)
    shard = (time.perf_counter() - start) / SEEKS
    memory = f"{imports:.0f} MB | {opening - imports:.0f} MB | {seeking - opening:.0f} MB | {seeking:.0f} MB"
    seeks = f"{statistics.median(seconds) * 1e3:.1f} ms | {max(seconds) * 1e3:.1f} ms"
    return f"| {window or 'all'} | {lanes} | {opened:.2f} s | {memory} | {seeks} | {shard * 1e3:.2f} ms |"


def seek(stream: DataStream, cursor: int) -> float:
    """Seconds until a rank of eight has its eight images of a batch somewhere in a hundred epochs."""
    start = time.perf_counter()
    with stream.open(cursor, 0, 8) as batches:
        next(batches)
        return time.perf_counter() - start


def peak() -> float:
    """The most memory that this process has held at once, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


if __name__ == "__main__":
    main()
