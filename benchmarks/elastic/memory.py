"""The bytes that a rank holds of parameters, moments and averages, against an N-th of the local engine's."""

from __future__ import annotations

import argparse
from itertools import product

from models.networks.unet import UNetConfig
from tests.trainer.ranks import on_ranks
from trainer.distributed import World
from trainer.ema import Ema
from trainer.optimizers import OptimizerConfig

SIZES = (2, 4)


def main() -> None:
    """Prints a row for each engine and number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=("ddp", "fsdp", "zero1", "zero2", "zero3"))
    options = parser.parse_args()
    (whole,) = on_ranks(1, held, "local")
    print(f"local holds {whole:,} bytes of the CIFAR-10 network\n")
    print("| engine | ranks | most bytes on a rank | of an N-th |\n|---|---|---|---|")
    for engine, ranks in product(options.engines, SIZES):
        most = max(on_ranks(ranks, held, engine, patience=300.0))
        print(f"| {engine} | {ranks} | {most:,} | {most * ranks / whole:.3f} |", flush=True)


def held(world: World, engine: str) -> int:
    """Bytes of this rank's storages of parameters, moments and two averages, once each."""
    from configs.schema import GROUPS

    config = GROUPS["engine"][engine]()
    built = config.build(lambda: UNetConfig().build(3, 32), OptimizerConfig(), 0, world)
    ema = Ema(built.shards(), [500_000.0, 50_000.0])
    tensors = [shard.tensor for shards in built.state().values() for shard in shards.values()]
    tensors += [average for averages in ema.averages.values() for average in averages]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


if __name__ == "__main__":
    main()
