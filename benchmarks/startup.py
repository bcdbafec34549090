"""Start-up: how long `python -m launch.train --help` takes, as a share of the three seconds that it may take."""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.interleave import Ratio, interleave, publish

LIMIT_SECONDS = 3.0


def main() -> None:
    """Runs the door several times in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    command = [sys.executable, "-m", "launch.train", "--help"]
    ways = {"help": lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)}
    seconds = sorted(interleave(ways, options.turns, warmup=1)["help"])
    middle = seconds[len(seconds) // 2]
    claim = f"launch.train --help, {middle:.2f} s"
    publish(
        "startup",
        [
            Ratio(
                claim, "3 s", LIMIT_SECONDS / middle, LIMIT_SECONDS / seconds[-1], LIMIT_SECONDS / seconds[0], 1.0
            )
        ],
    )


if __name__ == "__main__":
    main()
