"""One course of training under any engine: what the engines are compared by. Ranks split each batch among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import nn

from data_pipeline.stream import Batch
from models.diffusion import Chain
from models.objectives import Objective, SimpleLoss
from tests.trainer import tiny
from tests.trainer.ranks import plain
from trainer.distributed import World
from trainer.ema import Ema
from trainer.engines.engine import MOMENTS, Engine, EngineConfig, Precision
from trainer.engines.local import LocalConfig
from trainer.loop import train_step
from trainer.optimizers import OptimizerConfig
from trainer.shard import Shards

STEPS, BATCH = 6, 24
HALF_LIVES = (100.0, 5000.0)
RATE = 1e-2
OPTIMIZER = OptimizerConfig(epsilon=1e-3)
Learning: TypeAlias = Callable[[Engine], tuple[Chain, Objective]]
Between: TypeAlias = Callable[[Engine, World], None]


def started(config: EngineConfig, world: World, build: Callable[[], nn.Module] | None = None) -> Engine:
    """An engine whose weights are nowhere zero, the same under every engine.

    The gradients of key biases are 0 but for rounding, which Adam would blow up: epsilon keeps it small.
    """
    engine = config.build(build or tiny.network(), OPTIMIZER, 0, world)
    generator = torch.Generator().manual_seed(0)
    for shard in engine.shards().values():
        shift = 0.05 * torch.randn(shard.shape, generator=generator).flatten()
        shard.tensor.add_(shift[shard.start : shard.stop])
    return engine


def share(batch: Batch, world: World) -> Batch:
    """This rank's part of a batch."""
    rows = slice(world.rank, None, world.size)
    return Batch(batch.x[rows], None, batch.index[rows], batch.cursor, batch.global_size)


def denoising(engine: Engine) -> tuple[Chain, Objective]:
    """What is learned unless a test says otherwise."""
    return tiny.diffusion(engine), SimpleLoss()


def nothing(engine: Engine, world: World) -> None:
    """What happens between steps unless a test says otherwise."""


def follow(
    engine: Engine, world: World, steps: int = STEPS, learning: Learning = denoising, between: Between = nothing
) -> dict[str, Any]:
    """Losses, norms and, at the end, every shard, after so many steps with `between` before some of them."""
    ema, reports, (diffusion, objective) = Ema(engine.shards(), HALF_LIVES), [], learning(engine)
    for number in range(steps):
        if number in (0, 3):
            between(engine, world)
        batch = share(tiny.batch(number, BATCH), world)
        reports.append(train_step(engine, diffusion, objective, batch, RATE, seed=1))
        ema.update(BATCH)
    kinds = {**engine.state(), **{f"ema-{half_life:g}": ema.shards(half_life) for half_life in HALF_LIVES}}
    return {
        "losses": torch.stack([report.terms.loss for report in reports]).mean(1),
        "norms": torch.stack([report.gradient_norm for report in reports]),
        "kinds": {kind: pieces(shards) for kind, shards in kinds.items()},
    }


def course(
    world: World, config: EngineConfig, build: Callable[[], nn.Module] | None = None, **how: Any
) -> dict[str, Any]:
    """The same from the start."""
    return follow(started(config, world, build), world, **how)


def local(build: Callable[[], nn.Module] | None = None, precision: Precision = Precision.fp32, **how: Any):
    """The course of the local engine on whole batches: what the others are to follow."""
    return plain(course(World(), LocalConfig(precision), build, **how))


def initial_weights(world: World, config: EngineConfig) -> dict[str, Any]:
    """The weights as the engine has made them."""
    return pieces(config.build(tiny.network(), OptimizerConfig(), 5, world).shards())


def bytes_owned(world: World, config: EngineConfig) -> int:
    """The memory of this rank's weights, moments and averages, with all that is allocated along with them."""
    engine = config.build(tiny.network(channels=32), OptimizerConfig(), 0, world)
    ema = Ema(engine.shards(), HALF_LIVES)
    kinds = [engine.state()[kind] for kind in ("parameters", *MOMENTS)] + [ema.shards(each) for each in HALF_LIVES]
    storages = {shard.tensor.untyped_storage() for shards in kinds for shard in shards.values()}
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def disturb(engine: Engine, world: World) -> None:
    """All that may happen between two steps and must leave nothing behind."""
    before = {kind: pieces(shards) for kind, shards in engine.state().items()}
    with pytest.raises(RuntimeError, match="the probe failed"):
        fail_while_lent(engine)
    fail_on_last_rank(engine, world)
    look_at_others(engine, world)
    assert engine.network.training
    assert all(same(before[kind], pieces(shards)) for kind, shards in engine.state().items())


def fail_on_last_rank(engine: Engine, world: World) -> None:
    """A step in which the first loss of the last rank is not finite."""
    x, t, _ = tiny.images()
    for number in range(engine.accumulation):
        bad = float("nan") if world.rank == world.size - 1 and number == 0 else 1.0
        engine.backward((engine(x, t) * bad).mean(), last=number == engine.accumulation - 1)
    assert not torch.isfinite(engine.step(RATE))


def look_at_others(engine: Engine, world: World) -> None:
    """Looks at the live weights, at others that are lent, and at the live ones again, beside the local engine."""
    spec = started(LocalConfig(Precision.fp32), World())
    copy_shards_of(engine, world, spec)
    x, t, _ = tiny.images()
    with torch.no_grad():
        assert torch.equal(engine(x, t), spec(x, t))
        with engine.lend(moved(engine)), spec.lend(moved(spec)):
            assert torch.equal(engine(x, t), spec(x, t))
            assert torch.equal(engine(x, t), spec(x, t))
        assert torch.equal(engine(x, t), spec(x, t))


def fail_while_lent(engine: Engine) -> None:
    with engine.lend(moved(engine)), torch.inference_mode():
        engine(*tiny.images()[:2])
        raise RuntimeError("the probe failed")


def copy_shards_of(engine: Engine, world: World, spec: Engine) -> None:
    """Gives the local engine all the weights of one that is spread over ranks."""
    wholes = joined([plain(rank) for rank in world.everyones(pieces(engine.shards()))])
    for name, shard in spec.shards().items():
        shard.tensor.copy_(torch.from_numpy(wholes[name]).flatten())


def moved(engine: Engine) -> Shards:
    """Other weights than the engine's."""
    return {name: shard.like(shard.tensor + 0.1) for name, shard in engine.shards().items()}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Equal in every name and every bit."""
    return list(one) == list(other) and all(np.array_equal(one[name][2], other[name][2]) for name in one)


def pieces(shards: Shards) -> dict[str, tuple[int, tuple[int, ...], torch.Tensor]]:
    """What a rank can tell of its shards: name → start, shape and a copy."""
    return {name: (shard.start, shard.shape, shard.tensor.clone()) for name, shard in shards.items()}


def joined(ranks: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The whole tensors that the ranks' pieces make up. Where pieces lie over each other they must be equal."""
    assert all(list(rank) == list(ranks[0]) for rank in ranks), "the ranks do not name the same, in one order"
    wholes = {}
    for name, (_, shape, _) in ranks[0].items():
        whole, here = np.zeros(int(np.prod(shape)), np.float32), np.zeros(int(np.prod(shape)), bool)
        for start, its_shape, values in (rank[name] for rank in ranks):
            assert its_shape == shape
            part = slice(start, start + len(values))
            assert np.array_equal(whole[part][here[part]], np.asarray(values)[here[part]]), name
            whole[part], here[part] = values, True
        assert here.all(), f"nobody owns all of {name}"
        wholes[name] = whole.reshape(shape)
    return wholes


def assert_same_course(ranks: list[dict[str, Any]], spec: dict[str, Any], within: float = 1e-6) -> None:
    """Losses and norms are the spec's to 1e-5; weights, moments and averages to `within`, on every rank."""
    losses = np.mean([rank["losses"] for rank in ranks], axis=0)
    np.testing.assert_allclose(losses, spec["losses"], rtol=1e-5)
    for rank in ranks:
        np.testing.assert_allclose(rank["norms"], spec["norms"], rtol=1e-5)
        assert np.array_equal(rank["norms"], ranks[0]["norms"]), "the ranks disagree about the norm"
    for kind, expected in spec["kinds"].items():
        found, wanted = joined([rank["kinds"][kind] for rank in ranks]), joined([expected])
        assert list(found) == list(wanted)
        for name, tensor in wanted.items():
            np.testing.assert_allclose(found[name], tensor, rtol=0, atol=within, err_msg=f"{kind} {name}")


def assert_close_course(ranks: list[dict[str, Any]], spec: dict[str, Any]) -> None:
    """As near as bf16 can tell; what is kept is fp32 all the same."""
    losses = np.mean([rank["losses"] for rank in ranks], axis=0)
    np.testing.assert_allclose(losses, spec["losses"], rtol=0.01)
    np.testing.assert_allclose(ranks[0]["norms"], spec["norms"], rtol=0.05)
