"""Every benchmark, one after the other, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    ["benchmarks.training_step", "--batch", "8"],
    ["benchmarks.training_step", "--batch", "32", "--turns", "9"],
    ["benchmarks.dropout"],
    ["benchmarks.ema"],
    ["benchmarks.checkpoint"],
    ["benchmarks.startup"],
)


def main() -> None:
    """Runs them; stops at the first that fails."""
    for module, *options in BENCHMARKS:
        print(f"\n{module} {' '.join(options)}", flush=True)
        subprocess.run([sys.executable, "-m", module, *options], check=True)


if __name__ == "__main__":
    main()
