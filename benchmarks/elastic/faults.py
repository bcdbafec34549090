"""kill -9 at random times, of any rank, also inside a save: nothing is lost, repeated or torn.

Runs of two ranks on each engine in turn are killed and started again until they end. After each death the rank
that is left must end by itself, and the newest checkpoint must be whole; at the end, the averages must be those of
a run that nothing interrupted, bit for bit, which no lost or repeated sample would leave so.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

import torch

from benchmarks.elastic.scenario import BATCH, Place, average, losses, packed, trained
from tests.trainer.ranks import started
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.checkpoints.manifest import Manifest
from trainer.checkpoints.verification import faults

PLACES = [Place(engine, 2) for engine in ("ddp", "fsdp", "zero1", "zero2", "zero3")]
STEPS = 16
OFTEN = (f"run.save_every={BATCH}", "run.keep=2")  # each step
PATIENCE = 20.0


def main() -> None:
    """Kills so often, and says what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, seen = random.Random(options.seed), Counter()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        settings = (f"data.shards={packed(home / 'shards')}", *OFTEN)
        seconds = {}
        for place in PLACES:
            begun = time.monotonic()
            place.train(home / place.slug, STEPS, *settings)
            seconds[place] = time.monotonic() - begun
        for number, place in enumerate(cycle(PLACES)):
            if seen["kills"] >= options.kills:
                break
            directory = home / f"{place.slug}-{number}"
            while not ended(place, directory, settings, chance, seconds[place], seen):
                pass
            compare(directory, home / place.slug)
            seen["runs"] += 1
            print(f"{place}: {seen['kills']} kills in {seen['runs']} runs so far", file=sys.stderr)
    longest = seen.pop("longest wait")
    print(", ".join(f"{count} {what}" for what, count in seen.items()))
    print(f"the longest that a rank that was left took to end: {longest} s")


def ended(
    place: Place, directory: Path, settings: tuple[str, ...], chance: random.Random, seconds: float, seen: Counter
) -> bool:
    """Starts the run where it stands and kills one of its ranks after a while, unless it has ended by then."""
    before = partials(directory)
    processes, _ = started(place.ranks, trained, place.settings(directory, STEPS, *settings), patience=PATIENCE)
    victim = chance.choice(processes)
    victim.join(chance.uniform(0, 1.2 * seconds))
    finished = not victim.is_alive()
    if not finished:
        victim.kill()
        seen["kills"] += 1
        seen["kills inside a save"] += bool(partials(directory) - before)
    begun = time.monotonic()
    for process in processes:
        process.join(5 * PATIENCE)
        assert process.exitcode is not None, f"{place}: a rank hangs after the other's death"
        if finished:
            assert process.exitcode == 0, f"{place}: a rank failed by itself"
        else:
            assert process is victim or process.exitcode != 0 or done(directory), f"{place}: no one noticed"
    seen["longest wait"] = max(seen["longest wait"], round(time.monotonic() - begun))
    for path in Checkpoints(directory / "checkpoints").all()[-1:]:
        assert not faults(Manifest.read(path)), path
    return finished


def partials(directory: Path) -> set[Path]:
    """What saves have begun and not ended."""
    return set((directory / "checkpoints").glob("*.partial"))


def done(directory: Path) -> bool:
    """Whether the last checkpoint is there: the victim was killed on its way out."""
    return bool(list(directory.glob(f"checkpoints/*{STEPS * BATCH}")))


def compare(directory: Path, uninterrupted: Path) -> None:
    """The same averages, bit for bit, and a curve of the same steps."""
    ours, theirs = average(directory), average(uninterrupted)
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), f"{directory.name}: {name} has other bits"
    assert losses(directory).keys() == losses(uninterrupted).keys()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
