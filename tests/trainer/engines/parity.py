"""One course of training under any engine: what the engines are compared by. Ranks split each batch among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from data_pipeline.stream import Batch
from models.diffusion import Chain
from models.objectives import Objective, SimpleLoss
from tests.trainer import tiny
from trainer.distributed import World
from trainer.ema import Ema
from trainer.engines.engine import Engine, EngineConfig
from trainer.loop import train_step
from trainer.optimizers import OptimizerConfig
from trainer.shard import Shards

STEPS, BATCH = 6, 24
HALF_LIVES = (100.0, 5000.0)
RATE = 1e-2
Learning: TypeAlias = Callable[[Engine], tuple[Chain, Objective]]


def started(config: EngineConfig, world: World, build: Callable[[], nn.Module] | None = None) -> Engine:
    """An engine whose weights are nowhere zero, the same under every engine.

    The gradients of key biases are 0 but for rounding, which Adam would blow up: epsilon keeps it small.
    """
    engine = config.build(build or tiny.network(), OptimizerConfig(epsilon=1e-3), 0, world)
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


def follow(engine: Engine, world: World, steps: int = STEPS, learning: Learning = denoising) -> dict[str, Any]:
    """Losses, norms and, at the end, every shard, after so many steps with all that follows them."""
    ema, reports, (diffusion, objective) = Ema(engine.shards(), HALF_LIVES), [], learning(engine)
    for number in range(steps):
        batch = share(tiny.batch(number, BATCH), world)
        reports.append(train_step(engine, diffusion, objective, batch, RATE, seed=1))
        ema.update(BATCH)
    kinds = {**engine.state(), **{f"ema-{half_life:g}": ema.shards(half_life) for half_life in HALF_LIVES}}
    return {
        "losses": torch.stack([report.terms.loss for report in reports]).mean(1),
        "norms": torch.stack([report.gradient_norm for report in reports]),
        "kinds": {kind: pieces(shards) for kind, shards in kinds.items()},
    }


def course(world: World, config: EngineConfig, **how: Any) -> dict[str, Any]:
    """The same from the start."""
    return follow(started(config, world, how.pop("build", None)), world, **how)


def courses(world: World, configs: Mapping[str, EngineConfig]) -> dict[str, dict[str, Any]]:
    """Several of them, one after the other."""
    return {name: course(world, config) for name, config in configs.items()}


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
