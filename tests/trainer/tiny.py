"""The smallest things that the trainer's tests train: an engine on a U-Net of 8 channels, and batches for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from data_pipeline.stream import Batch
from models.diffusion import Diffusion
from models.networks.unet import UNetConfig
from models.noise import Noise, Purpose
from models.objectives import Terms
from models.parameterizations import Epsilon
from models.processes import GaussianProcess
from trainer.ema import Ema
from trainer.engines.engine import Precision
from trainer.engines.local import LocalConfig, LocalEngine
from trainer.lap import Lap
from trainer.optimizers import OptimizerConfig
from trainer.state import TrainState
from trainer.tally import Report

CPU = torch.device("cpu")


def network(
    dropout: float = 0.0, channels: int = 8, multipliers: tuple[int, ...] = (1, 2)
) -> Callable[[], nn.Module]:
    config = UNetConfig(channels, list(multipliers), blocks=1, attention=[4], dropout=dropout, groups=4)
    return lambda: config.build(1, 8)


def engine(
    build: Callable[[], nn.Module] | None = None,
    optimizer: OptimizerConfig | None = None,
    seed: int = 0,
    precision: Precision = Precision.fp32,
    **config: object,
) -> LocalEngine:
    """An engine whose weights are nowhere zero, so that every one of them is trained from the first step on."""
    built = LocalEngine(
        LocalConfig(precision=precision, **config), build or network(), optimizer or OptimizerConfig(), seed, CPU
    )
    generator = torch.Generator().manual_seed(seed)
    for weight in weights(built).values():
        weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return built


def weights(of: LocalEngine) -> dict[str, torch.Tensor]:
    """The engine's live weights, in their own shapes."""
    return {name: shard.whole for name, shard in of.shards().items()}


def averages(of: TrainState, half_life: float) -> dict[str, torch.Tensor]:
    """One of the averages of the weights, in their own shapes."""
    return {name: shard.whole for name, shard in of.ema.shards(half_life).items()}


def images(count: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, t and a target for the network's output."""
    noise = Noise(seed, torch.arange(count))
    x, target = (noise.normal(purpose, (1, 8, 8)) for purpose in (Purpose.PRIOR, Purpose.EPSILON))
    return x, 1 + noise.integers(Purpose.TIME, 1000), target


def batch(number: int = 0, size: int = 8) -> Batch:
    """Batch `number` of a stream of random bytes."""
    pixels = torch.randint(256, (size, 1, 8, 8), generator=torch.Generator().manual_seed(number))
    index = torch.arange(number * size, (number + 1) * size)
    return Batch(pixels.byte(), None, index, cursor=(number + 1) * size, global_size=size)


def report(
    loss: Sequence[float], t: Sequence[int], norm: float = 1.0, index: Sequence[int] | None = None
) -> Report:
    """What a step would say of itself that had these losses, at these t, of these samples."""
    terms, lap = Terms(torch.tensor(loss), torch.tensor(t)), Lap(CPU)
    lap.end()
    samples = torch.arange(len(loss)) if index is None else torch.tensor(index)
    return Report(terms, torch.tensor(norm), 1e-3, samples, lap)


def diffusion(of: LocalEngine) -> Diffusion:
    return Diffusion(GaussianProcess(), Epsilon(), network=of)


def step(of: LocalEngine, number: int = 0, learning_rate: float = 1e-3) -> torch.Tensor:
    """One step towards fixed targets; the gradient's norm."""
    x, t, target = images(seed=number)
    of.backward((of(x, t) - target).square().mean(), last=True)
    return of.step(learning_rate)


def state(
    seed: int = 0, steps: int = 0, half_lives: tuple[float, ...] = (100.0, 5000.0), **network_is: object
) -> TrainState:
    """Where a run stands after so many steps of 8 images."""
    trained = engine(network(**network_is), seed=seed)
    found = TrainState(trained, Ema(trained.shards(), half_lives))
    for number in range(steps):
        advance(found, number)
    return found


def advance(found: TrainState, number: int) -> None:
    """One more step, with everything that follows it."""
    step(found.engine, number)
    found.ema.update(8)
    found.advance(batch(number))


def tensors(of: TrainState) -> dict[str, torch.Tensor]:
    """Every tensor of a state, by a name of its own, copied."""
    kinds = {
        **of.engine.state(),
        **{f"ema-{half_life}": of.ema.shards(half_life) for half_life in of.ema.averages},
    }
    return {
        f"{kind}/{name}": shard.whole.clone() for kind, named in kinds.items() for name, shard in named.items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Equal in every name and every bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
