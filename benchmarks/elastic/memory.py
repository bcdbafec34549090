"""The bytes that a rank holds of weights, moments and averages, against an N-th of the local engine's."""

from __future__ import annotations

import argparse
from itertools import product

from torch import Tensor
from torch.distributed.tensor import DTensor

from models.networks.unet import UNetConfig
from tests.trainer.ranks import on_ranks
from trainer.distributed import World
from trainer.ema import Ema
from trainer.engines.engine import Engine
from trainer.optimizers import OptimizerConfig

SIZES = (2, 4)


def main() -> None:
    """Prints a row for each engine and number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=("fsdp", "zero1", "zero2", "zero3"))
    options = parser.parse_args()
    ((whole, _),) = on_ranks(1, held, "local")
    print(f"local holds {whole:,} bytes of the CIFAR-10 network\n")
    print("| engine | ranks | most bytes on a rank | of an N-th | with the bf16 weights | of an N-th |")
    print("|---|---|---|---|---|---|")
    for engine, ranks in product(options.engines, SIZES):
        state, everything = map(max, zip(*on_ranks(ranks, held, engine, patience=300.0), strict=True))
        shares = (state * ranks / whole, everything * ranks / whole)
        print(
            f"| {engine} | {ranks} | {state:,} | {shares[0]:.3f} | {everything:,} | {shares[1]:.3f} |", flush=True
        )


def held(world: World, engine: str) -> tuple[int, int]:
    """Bytes of this rank's storages of the state and two averages, and of all that and the network's own weights.

    Each storage is counted once, with what it is padded by.
    """
    from configs.schema import GROUPS

    config = GROUPS["engine"][engine]()
    built = config.build(lambda: UNetConfig().build(3, 32), OptimizerConfig(), 0, world)
    ema = Ema(built.shards(), [500_000.0, 50_000.0])
    state = [shard.tensor for shards in built.state().values() for shard in shards.values()]
    state += [average for averages in ema.averages.values() for average in averages]
    return bytes_of(state), bytes_of([*state, *run_on(built)])


def run_on(engine: Engine) -> list[Tensor]:
    """The weights that the network runs on, or this rank's part of them."""
    local = [getattr(each, "ds_tensor", each) for each in engine.network.parameters()]
    return [each.to_local() if isinstance(each, DTensor) else each for each in local]


def bytes_of(tensors: list[Tensor]) -> int:
    """Of their storages."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


if __name__ == "__main__":
    main()
