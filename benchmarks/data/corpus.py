"""Images like photographs, as bytes of one format, laid out as each loader wants them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PER_SHARD = 250


def photographs(count: int, side: int = 256, seed: int = 0) -> Iterator[Image.Image]:
    """Squares of scikit-learn's two photographs, of every scale, with a little of a sensor's noise."""
    from sklearn.datasets import load_sample_image

    rng, sources = np.random.default_rng(seed), [load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
    for i in range(count):
        photograph = sources[i % 2]
        cut = int(rng.integers(200, 428))
        top, left = rng.integers(0, 428 - cut), rng.integers(0, 641 - cut)
        square = Image.fromarray(photograph[top : top + cut, left : left + cut])
        pixels = np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))
        noisy = pixels + rng.normal(0, 2, pixels.shape)
        yield Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def encoded(images: Iterator[Image.Image], format: str, quality: int = 90) -> list[bytes]:
    """The images as JPEG, PNG or WebP."""
    files = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, format, quality=quality)
        files.append(buffer.getvalue())
    return files


def write_tars(files: Sequence[bytes], extension: str, folder: Path) -> None:
    """As webdataset writes them; it and ours read them."""
    from webdataset import ShardWriter

    fresh(folder)
    pattern = str(folder / "shard-%04d.tar")
    with ShardWriter(pattern, maxcount=PER_SHARD, verbose=0, encoder=False) as writer:
        for number, data in enumerate(files):
            writer.write({"__key__": f"{number:08d}", extension: data})


def write_lmdb(files: Sequence[bytes], folder: Path) -> None:
    """One value an image, in one database."""
    import lmdb

    fresh(folder)
    with (
        lmdb.open(str(folder), map_size=2 * sum(map(len, files)) + 2**24) as database,
        database.begin(write=True) as t,
    ):
        for number, data in enumerate(files):
            t.put(f"{number:08d}".encode(), data)


def write_mds(files: Sequence[bytes], folder: Path) -> None:
    """As mosaicml-streaming writes them."""
    from streaming import MDSWriter

    fresh(folder)
    with MDSWriter(out=str(folder), columns={"image": "bytes"}, size_limit=2**23) as writer:
        for data in files:
            writer.write({"image": data})


def fresh(folder: Path) -> None:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
