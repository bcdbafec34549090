"""An LMDB in LSUN's layout: keys of forty hexadecimal digits, values that are WebP files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image


def make_lmdb(path: Path, images: Mapping[str, bytes]) -> Path:
    """Writes a database as LSUN's authors do, without sub-databases; `images` by key."""
    with lmdb.open(str(path), map_size=1 << 30) as environment, environment.begin(write=True) as transaction:
        for key, value in images.items():
            transaction.put(key.encode(), value)
    return path


def lsun_images(count: int, height: int = 20, width: int = 24, seed: int = 0) -> dict[str, bytes]:
    """Smooth pictures with some noise as WebP of quality 75, LSUN's, by key; in no order, as LSUN's arrived."""
    drawn, images = np.random.default_rng(seed), {}
    for number in range(count):
        coarse = Image.fromarray(drawn.integers(0, 256, (3, 4, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(smooth + drawn.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "WEBP", quality=75)
        images[hashlib.sha1(f"{seed} {number}".encode()).hexdigest()] = file.getvalue()
    return images
