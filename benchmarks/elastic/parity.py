"""Twenty steps in fp32: every engine on 1, 2 and 3 ranks, in 1 and 2 micro-batches, against the local one."""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path

import torch

from benchmarks.elastic.scenario import Place, apart, average, losses, packed

ENGINES = ("local", "ddp", "fsdp", "zero1", "zero2", "zero3")
STEPS = 20


def main() -> None:
    """Prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=ENGINES)
    engines = parser.parse_args().engines
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        shards = f"data.shards={packed(home / 'shards')}"
        Place("local", 1).train(home / "spec", STEPS, shards)
        curve, weights = losses(home / "spec"), average(home / "spec")
        print("| engine | ranks | micro-batches | loss, relative | average, absolute |\n|---|---|---|---|---|")
        for engine, ranks, accumulation in product(engines, (1, 2, 3), (1, 2)):
            if engine == "local" and ranks > 1:
                continue
            directory = home / f"{engine}-{ranks}-{accumulation}"
            Place(engine, ranks, accumulation).train(directory, STEPS, shards)
            found = average(directory)
            off = max(float((found[name] - weight).abs().max()) for name, weight in weights.items())
            loss = apart(losses(directory), curve)
            print(f"| {engine} | {ranks} | {accumulation} | {loss:.1e} | {off:.1e} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
