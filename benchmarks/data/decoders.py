"""How many images a second each library decodes, of each format, in one thread and from memory."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from PIL import Image

from benchmarks.data.corpus import encoded, photographs
from benchmarks.interleave import interleave, publish, ratio

Decode = Callable[[bytes], np.ndarray]


def by_pillow(data: bytes) -> np.ndarray:
    """As most loaders do it."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def by_opencv(data: bytes) -> np.ndarray:
    """In the order red, green, blue."""
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def by_simplejpeg(data: bytes) -> np.ndarray:
    """With the exact transform."""
    from simplejpeg import decode_jpeg

    return decode_jpeg(data, fastdct=False, fastupsample=False)


def by_pyspng(data: bytes) -> np.ndarray:
    """Not used: its last version is of 2021. Measured where it is installed."""
    import pyspng

    return pyspng.load(data)


def ours(data: bytes) -> np.ndarray:
    """With its checks."""
    from data_pipeline.decoders import decode_pixels

    return decode_pixels(data, 3)


LIBRARIES = {"Pillow": by_pillow, "OpenCV": by_opencv, "simplejpeg": by_simplejpeg, "pyspng": by_pyspng}
MODULES = {"Pillow": "PIL", "OpenCV": "cv2"}
FORMATS = {
    "JPEG": (("Pillow", "OpenCV", "simplejpeg"), 1.5),
    "WebP": (("Pillow", "OpenCV"), 1.1),
    "PNG": (("Pillow", "OpenCV", "pyspng"), 1.05),
}


def main() -> None:
    """A table of rates, and one of ours against Pillow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=41)
    parser.add_argument("--count", type=int, default=16)
    options = parser.parse_args()
    ratios, rows = [], []
    for format, (names, target) in FORMATS.items():
        files = encoded(photographs(options.count), format)
        decoders: dict[str, Decode] = {
            name: LIBRARIES[name] for name in names if find_spec(MODULES.get(name, name)) is not None
        }
        for name, decode in decoders.items():
            assert np.array_equal(decode(files[0]), ours(files[0])), name
        ways = {
            name: lambda decode=decode, files=files: list(map(decode, files)) for name, decode in decoders.items()
        }
        seconds = interleave({**ways, "ours": lambda files=files: list(map(ours, files))}, options.turns)
        size = sum(map(len, files)) / len(files) / 1e3
        ratios.append(ratio(f"decoding {format}", "Pillow", target, seconds["Pillow"], seconds["ours"]))
        rates = {name: len(files) / sorted(values)[len(values) // 2] for name, values in seconds.items()}
        rows += [f"| {format}, {size:.0f} kB | {name} | {rate:.0f} |" for name, rate in rates.items()]
    print("| 256x256 | library | images/s |\n|---|---|---|", *rows, sep="\n")
    publish("decoders", ratios)


if __name__ == "__main__":
    main()
