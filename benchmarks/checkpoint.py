"""Checkpoints of 572 MB: what a save keeps training waiting, and how long loading takes, against torch's own.

The state is that of the CIFAR U-Net: 35.7 M parameters, two moments and one average, in fp32. Loading checks every
checksum. Both peers write to and read from the same directory, whose files are in the page cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.interleave import interleave, publish, ratio
from models.networks.unet import UNetConfig
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.checkpoints.contents import everything_in
from trainer.distributed import World
from trainer.ema import Ema
from trainer.engines.engine import Precision
from trainer.engines.local import LocalConfig
from trainer.optimizers import OptimizerConfig
from trainer.state import TrainState


def main() -> None:
    """Saves and loads, turn by turn; what goes on behind training has ended before the next way begins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    config = UNetConfig()
    engine = LocalConfig(precision=Precision.fp32).build(
        lambda: config.build(3, 32), OptimizerConfig(), 0, World()
    )
    state = TrainState(engine, Ema(engine.shards(), [887184.0]))
    whole = {key: shard.whole for key, shard in everything_in(state).items()}
    megabytes = sum(each.nbytes for each in whole.values()) / 1e6
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        theirs, checkpoints = Path(directory) / "state.pt", Checkpoints(Path(directory) / "ours", keep=1)

        def ours() -> None:
            state.images += 1
            checkpoints.save(state)

        ways: dict[str, Callable[[], object]] = {"torch.save": lambda: torch.save(whole, theirs), "save": ours}
        saving = alone(ways, options.turns, checkpoints.wait)
        loads = {"torch.load": lambda: torch.load(theirs), "restore": lambda: checkpoints.restore(state)}
        loading = interleave(loads, options.turns)
    claim = f"{megabytes:.0f} MB"
    publish(
        "checkpoint",
        [
            ratio(f"save of {claim}, blocking part", "torch.save", 6, saving["torch.save"], saving["save"]),
            ratio(
                f"load of {claim}, checksums checked", "torch.load", 2, loading["torch.load"], loading["restore"]
            ),
        ],
    )


def alone(
    ways: dict[str, Callable[[], object]], turns: int, settle: Callable[[], object], warmup: int = 2
) -> dict[str, list[float]]:
    """As `interleave`, with a pause outside the measure in which what a way has begun comes to its end."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + warmup):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
            settle()
    return {name: measured[warmup:] for name, measured in seconds.items()}


if __name__ == "__main__":
    main()
