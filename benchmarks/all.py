"""Every benchmark, one after the other, each in a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys

BENCHMARKS = (
    ["benchmarks.training_step", "--batch", "8"],
    ["benchmarks.training_step", "--batch", "32", "--turns", "9"],
    ["benchmarks.dropout"],
    ["benchmarks.ema"],
    ["benchmarks.checkpoint"],
    ["benchmarks.startup"],
    ["benchmarks.data.decoders"],
    ["benchmarks.data.packing"],
    ["benchmarks.data.opening"],
    ["benchmarks.data.locality"],
    ["benchmarks.data.randomness"],
)
LOADERS = "benchmarks.data.loaders"


def main() -> None:
    """Runs them; stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default="", help="where benchmarks/requirements-peers.txt was installed")
    peers = parser.parse_args().peers
    for module, *options in (*BENCHMARKS, [LOADERS, *(["--peers", peers] if peers else [])]):
        print(f"\n{module} {' '.join(options)}", flush=True)
        subprocess.run([sys.executable, "-m", module, *options], check=True)


if __name__ == "__main__":
    main()
