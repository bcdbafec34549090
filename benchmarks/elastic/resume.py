"""A run that changes its engine and its number of ranks half way, for all ordered pairs of places.

On the same place the averages must be those of a run that nothing interrupted, bit for bit; on another, the losses
must lie on the local engine's curve to 1e-5.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch

from benchmarks.elastic.scenario import Place, apart, average, losses, packed

PLACES = (
    Place("local", 1),
    Place("ddp", 2),
    Place("fsdp", 2),
    Place("fsdp", 3),
    Place("zero1", 2),
    Place("zero2", 2),
    Place("zero3", 2),
)
STEPS = 10


def main() -> None:
    """Prints the table: from the place of a row to the place of a column."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, nargs="*", default=range(len(PLACES)), help="numbers, from 0")
    places = [PLACES[number] for number in parser.parse_args().places]
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        shards = f"data.shards={packed(home / 'shards')}"
        for place in {PLACES[0], *places}:
            place.train(home / f"whole-{place.slug}", 2 * STEPS, shards)
            place.train(home / f"half-{place.slug}", STEPS, shards)
        spec = losses(home / f"whole-{PLACES[0].slug}")
        print(f"| from | {' | '.join(map(str, places))} |\n|---|{'---|' * len(places)}")
        for source in places:
            print(
                f"| {source} | {' | '.join(cell(home, source, to, shards, spec) for to in places)} |", flush=True
            )


def cell(home: Path, source: Place, to: Place, shards: str, spec: dict[int, float]) -> str:
    """How far the curve of a run that went from one place to the other is from the local engine's."""
    directory = home / f"{source.slug}-to-{to.slug}"
    shutil.copytree(home / f"half-{source.slug}", directory)
    to.train(directory, 2 * STEPS, shards)
    found = f"{apart(losses(directory), spec):.1e}"
    if source == to:
        uninterrupted, resumed = average(home / f"whole-{to.slug}"), average(directory)
        same = all(torch.equal(resumed[name], weight) for name, weight in uninterrupted.items())
        found += ", same bits" if same else ", **other bits**"
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
