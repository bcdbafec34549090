"""Images a second of this repository's stream and of its peers, of 256x256 JPEG and WebP, with 0 and 2 workers.

Every way runs in a fresh process, turn by turn. `--peers` is where benchmarks/requirements-peers.txt was
installed; without it mosaicml-streaming is left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.data.corpus import encoded, photographs, write_lmdb, write_tars
from benchmarks.interleave import Ratio, publish, ratio

LIBRARIES = ("simplejpeg", "opencv-python-headless", "pillow", "webdataset", "lmdb")


@dataclass(frozen=True)
class Way:
    """What runs in a process of its own."""

    format: str
    name: str
    decoder: str
    workers: int

    def __str__(self) -> str:
        shown = {
            "memory": "raw decoding from memory",
            "database": "DataLoader over LMDB",
            "mosaicml": "mosaicml-streaming",
        }
        who = shown.get(self.name, self.name)
        return who if self.name in ("ours", "memory") else f"{who}, {self.decoder}"


@dataclass(frozen=True)
class Claim:
    """Ours against one peer."""

    way: Way
    target: float

    @property
    def ours(self) -> Way:
        return Way(self.way.format, "ours", "fast", self.way.workers)


def claims(mosaicml: bool) -> list[Claim]:
    """The peers with the decoder that they come with and with ours; the targets of each."""
    least = {  # (name, decoder): with no workers, with two
        ("webdataset", "pillow"): (2.0, 2.4),
        ("webdataset", "simplejpeg"): (1.25, 1.7),
        ("mosaicml", "pillow"): (1.5, 1.5),
        ("mosaicml", "simplejpeg"): (1.5, 1.5),
        ("database", "pillow"): (1.5, 1.5),
        ("database", "simplejpeg"): (1.5, 1.5),
    }
    found = [
        Claim(Way("jpg", name, decoder, workers), targets[workers // 2])
        for workers in (0, 2)
        for (name, decoder), targets in least.items()
        if mosaicml or name != "mosaicml"
    ]
    for workers in (0, 2):
        found.append(Claim(Way("webp", "webdataset", "pillow", workers), 1.5))
        found.append(Claim(Way("webp", "webdataset", "opencv", workers), 1.5))
    return [*found, *(Claim(Way(format, "memory", "fast", 0), 0.85) for format in ("jpg", "webp"))]


def seconds(way: Way, folder: Path, images: int, peers: str) -> float:
    """Of an image."""
    command = [sys.executable, "-m", "benchmarks.data.ways", way.name, str(folder / way.format)]
    command += ["--workers", str(way.workers), "--images", str(images if way.format == "jpg" else images // 3)]
    if way.decoder != "fast":
        command += ["--decoder", way.decoder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if way.name == "mosaicml":
        environment["PYTHONPATH"] = peers
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.rpartition("seconds")[2])


def main() -> None:
    """A table of rates, one of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--count", type=int, default=2000, help="images of the corpus; a third as many in WebP")
    parser.add_argument("--images", type=int, default=1920, help="images of a turn")
    parser.add_argument("--peers", default="")
    options = parser.parse_args()
    chosen = claims(bool(options.peers))
    ways = sorted({way for claim in chosen for way in (claim.ours, claim.way)}, key=repr)
    taken: dict[Way, list[float]] = {way: [] for way in ways}
    with TemporaryDirectory() as folder:
        sizes = make(Path(folder), options.count)
        for turn in range(options.turns):
            for way in ways[:: 1 if turn % 2 else -1]:
                taken[way].append(seconds(way, Path(folder), options.images, options.peers))
                print(
                    f"turn {turn}: {way.format}, {way.workers} workers, {way}: {1 / taken[way][-1]:.0f}",
                    file=sys.stderr,
                )
    print("| 256x256 | workers | loader | images/s |\n|---|---|---|---|")
    for way, values in taken.items():
        size, rate = sizes[way.format], 1 / statistics.median(values)
        print(f"| {way.format}, {size:.1f} kB | {way.workers} | {way} | {rate:.0f} |")
    if not options.peers:
        print("mosaicml-streaming was not measured: no --peers")
    publish("loaders", [compared(claim, taken) for claim in chosen])
    print(f"cores={os.cpu_count()} " + " ".join(f"{library}={version(library)}" for library in LIBRARIES))


def make(folder: Path, count: int) -> dict[str, float]:
    """The corpora; the mean length of a file of each format, in kB."""
    sizes = {}
    for format, name, number in (("jpg", "JPEG", count), ("webp", "WebP", count // 3)):
        files = encoded(photographs(number), name)
        write_tars(files, format, folder / format / "tars")
        write_lmdb(files, folder / format / "lmdb")
        (folder / format / "count").write_text(str(number))
        sizes[format] = sum(map(len, files)) / len(files) / 1e3
    return sizes


def compared(claim: Claim, taken: dict[Way, list[float]]) -> Ratio:
    """Turn by turn."""
    told = f"{claim.way.format}, {claim.way.workers} workers"
    return ratio(told, str(claim.way), claim.target, taken[claim.way], taken[claim.ours])


if __name__ == "__main__":
    main()
