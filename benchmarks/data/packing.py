"""The converter of LSUN's LMDB: images/s against bare decoding and encoding, and bytes out against bytes in.

The database is made here, in LSUN's layout: crops of real photographs of LSUN's sizes, as WebP of its quality. The
bare way decodes, crops, resizes and encodes the same images from memory, in as many processes, started in the same
way; ours reads them from the database as well, and writes the shards with their checksums and indexes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

from benchmarks.data.bare import Bare
from benchmarks.interleave import Ratio, interleave, publish, ratio
from data_pipeline.crew import carried_out
from data_pipeline.lsun import Lsun
from data_pipeline.preparation import Format, Preparation
from data_pipeline.write import write_shards

HEIGHT, WIDTH = 256, 341
RESOLUTION = 256
DISTINCT = 200  # images; each is in the database under several keys


def main() -> None:
    """Packs a database in each way, turn by turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        values = [value for _, value in zip(range(options.images), cycle(webps(DISTINCT)), strict=False)]
        path = database(Path(directory) / "lmdb", values)
        ratios = [lengths(path, values, Path(directory))]
        for workers in options.workers:
            # A PNG takes several times as long to encode, so a part of the images tells as much.
            for format, count in ((Format.png, options.images // 4), (Format.jpg, options.images)):
                ratios.append(against_bare(path, values[:count], Path(directory), workers, format, options.turns))
    publish("packing", ratios)


def webps(count: int) -> Iterator[bytes]:
    """Images as LSUN has them: the shorter side of 256 pixels, WebP of quality 75."""
    from sklearn.datasets import load_sample_image

    drawn = np.random.default_rng(0)
    photographs = [Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")]
    for number in range(count):
        photograph = photographs[number % 2]
        scale = drawn.uniform(0.65, 1)
        width, height = round(WIDTH * scale), round(HEIGHT * scale)
        left, top = (int(drawn.integers(0, end + 1)) for end in (640 - width, 427 - height))
        crop = photograph.crop((left, top, left + width, top + height))
        file = io.BytesIO()
        crop.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(file, "WEBP", quality=75)
        yield file.getvalue()


def database(path: Path, values: list[bytes]) -> Path:
    """In LSUN's layout: keys of forty hexadecimal digits, in no order."""
    with lmdb.open(str(path), map_size=1 << 34) as environment, environment.begin(write=True) as transaction:
        for number, value in enumerate(values):
            transaction.put(hashlib.sha1(str(number).encode()).hexdigest().encode(), value)
    return path


def lengths(path: Path, values: list[bytes], directory: Path) -> Ratio:
    """Bytes of the database over those of its shards and their indexes, when the images pass through."""
    packed(path, directory, 1, Preparation(), len(values))
    out = sum(file.stat().st_size for file in (directory / "out").iterdir())
    database, images = (path / "data.mdb").stat().st_size, sum(map(len, values))
    print(f"{len(values)} images of {images / len(values):.0f} bytes on average: {images} bytes")
    print(f"database {database} bytes, shards and indexes {out}: {out / database:.3f} times")
    print(f"the images alone: {out / images:.3f} times")
    return Ratio("bytes in over bytes out, passed through", "data.mdb", *[database / out] * 3, target=1 / 1.02)


def against_bare(
    path: Path, values: list[bytes], directory: Path, workers: int, format: Format, turns: int
) -> Ratio:
    """Seconds of bare decoding and encoding over ours."""
    preparation = Preparation(resolution=RESOLUTION, format=format)
    each = samples_per_shard(len(values), workers)
    tasks = [range(start, min(start + each, len(values))) for start in range(0, len(values), each)]
    seconds = interleave(
        {
            "bare": partial(bare, Bare(values, preparation), tasks, workers),
            "ours": partial(packed, path, directory, workers, preparation, len(values)),
        },
        turns,
        warmup=1,
    )
    claim = f"LMDB to {RESOLUTION}x{RESOLUTION} {format.name}, {workers} processes"
    return ratio(claim, "decode + encode from memory", 0.9, seconds["bare"], seconds["ours"])


def bare(job: Bare, tasks: list[range], workers: int) -> None:
    """All stretches."""
    for _ in carried_out(job, tasks, workers=workers, tell=lambda amount: None):
        pass


def packed(path: Path, directory: Path, workers: int, preparation: Preparation, images: int) -> None:
    """The first images of the database to a folder of shards, anew."""
    shutil.rmtree(directory / "out", ignore_errors=True)
    source = Lsun(path, preparation, max_images=images)
    each = samples_per_shard(images, workers)
    write_shards(source, directory / "out", samples_per_shard=each, workers=workers)


def samples_per_shard(images: int, workers: int) -> int:
    """So many that each process has one shard."""
    return -(-images // workers)


if __name__ == "__main__":
    main()
