"""ZeroEngine: LocalEngine's training, with what it needs cut among real processes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from data_pipeline.stream import Batch
from models.networks.refinenet import RefineNetConfig
from models.networks.scheduled import Scheduled
from models.objectives import SimpleLoss
from models.schedules import Learned
from tests.trainer import tiny
from tests.trainer.ranks import on_ranks
from trainer.distributed import World
from trainer.ema import Ema
from trainer.engines.engine import Engine, Precision
from trainer.engines.layout import Elements, Flat
from trainer.engines.local import LocalConfig
from trainer.engines.parts import side_by_side
from trainer.engines.zero import Zero1Config, Zero2Config, Zero3Config, ZeroConfig, ZeroEngine
from trainer.loop import train_step
from trainer.optimizers import OptimizerConfig
from trainer.shard import Shards, copy_shards

STAGES = {1: Zero1Config, 2: Zero2Config, 3: Zero3Config}
STEPS, BATCH, HALF_LIVES = 4, 12, (50.0, 5000.0)
FLAT = OptimizerConfig(epsilon=1e-3)  # Adam would magnify the rounding of gradients that are 0 but for rounding


def zero(world: World, stage: int, build: Callable[[], nn.Module] | None = None, **fields: object) -> ZeroEngine:
    """An engine of that stage, whose weights are nowhere zero. In stage 3 some of them stay whole."""
    config = STAGES[stage](**{"precision": Precision.fp32, **({"keep_whole": 8} if stage == 3 else {}), **fields})
    engine = config.build(build or small(), FLAT, 0, world)
    stir(engine)
    return engine


def local(build: Callable[[], nn.Module] | None = None, **fields: object) -> Engine:
    config = LocalConfig(**{"precision": Precision.fp32, **fields})
    engine = config.build(build or small(), FLAT, 0, World())
    stir(engine)
    return engine


def small() -> Callable[[], nn.Module]:
    return tiny.network(channels=4, multipliers=(1,))


def stir(engine: Engine) -> None:
    generator = torch.Generator().manual_seed(0)
    for shard in engine.shards().values():
        noise = torch.randn(math.prod(shard.shape), generator=generator)
        shard.tensor.add_(noise[shard.start : shard.stop], alpha=0.05)
    engine.refresh()


def part(world: World, number: int) -> Batch:
    """This rank's rows of batch `number`."""
    whole, count = tiny.batch(number, BATCH), BATCH // world.size
    rows = slice(world.rank * count, (world.rank + 1) * count)
    return Batch(whole.x[rows], None, whole.index[rows], whole.cursor, BATCH)


def step(engine: Engine, world: World, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(the losses of the whole batch, the gradient's norm)."""
    report = train_step(engine, tiny.diffusion(engine), SimpleLoss(), part(world, number), 1e-2, seed=1)
    return world.in_order(report.terms.loss), report.gradient_norm


def train(engine: Engine, world: World, steps: int = STEPS) -> dict[str, object]:
    """What so many steps give: losses, norms, and this rank's pieces of all that training moves."""
    ema, losses, norms = Ema(engine.shards(), HALF_LIVES), [], []
    for number in range(steps):
        loss, norm = step(engine, world, number)
        ema.update(BATCH)
        losses.append(loss.mean())
        norms.append(norm)
    kinds = {**engine.state(), **{f"ema {life}": ema.shards(life) for life in HALF_LIVES}}
    return {"loss": torch.stack(losses), "norm": torch.stack(norms), **{kind: cut(kinds[kind]) for kind in kinds}}


def cut(shards: Shards) -> dict[str, tuple[int, torch.Tensor]]:
    return {name: (shard.start, shard.tensor.clone()) for name, shard in shards.items()}


def whole(ranks: list[dict[str, tuple[int, np.ndarray]]]) -> dict[str, np.ndarray]:
    """The tensors that the ranks' pieces are cut from. Fails where pieces overlap or leave a gap."""
    joined = {}
    for name in ranks[0]:
        found = sorted((rank[name] for rank in ranks if len(rank[name][1])), key=lambda piece: piece[0])
        assert [start for start, _ in found] == np.cumsum([0, *(len(piece) for _, piece in found)])[
            :-1
        ].tolist(), name
        joined[name] = np.concatenate([piece for _, piece in found])
    return joined


def close(ranks: list[dict], expected: dict, kind: str, tolerance: float) -> None:
    joined = whole([rank[kind] for rank in ranks])
    assert list(joined) == list(expected[kind])
    for name, (_, tensor) in expected[kind].items():
        assert np.abs(joined[name] - tensor.numpy()).max() <= tolerance, (kind, name)


SHAPES = {"a": (3, 5), "b": (2,), "c": (40,), "d": (1,)}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 29, 60])
def test_the_parts_of_all_ranks_cover_every_parameter_once(size):
    for places in (
        [side_by_side(SHAPES, Flat(size), rank, room=rank) for rank in range(size)],
        [side_by_side(SHAPES, Elements(size), rank) for rank in range(size)],
    ):
        whole(
            [{name: (p.elements.start, np.zeros(len(p.elements))) for name, p in each.items()} for each in places]
        )
        for each in places:
            held = [place for place in each.values() if place.elements]
            ends = [place.offset + len(place.elements) for place in held]
            assert all(end <= after.offset for end, after in zip(ends, held[1:], strict=False))


def parity(world: World) -> dict[object, object]:
    found: dict[object, object] = {}
    for stage in STAGES:
        for accumulation in (1, 2):
            found[stage, accumulation] = train(zero(world, stage, accumulation=accumulation), world)
        engine = STAGES[stage](accumulation=2).build(small(), FLAT, 0, world)
        found["initial", stage] = cut(engine.shards())
        stir(engine)
        found["bf16", stage] = train(engine, world, steps=2)
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_stage_trains_as_one_process_does(size):
    ranks = on_ranks(size, parity)
    initial = LocalConfig().build(small(), FLAT, 0, World()).shards()
    expected, in_bf16 = train(local(), World()), train(local(precision=Precision.bf16), World(), steps=2)
    for stage in STAGES:
        first = whole([rank["initial", stage] for rank in ranks])
        assert list(first) == list(initial)
        assert all(np.array_equal(first[name], shard.tensor) for name, shard in initial.items())
        for accumulation in (1, 2):
            found = [rank[stage, accumulation] for rank in ranks]
            for kind in ("loss", "norm"):
                assert all(np.allclose(rank[kind], expected[kind], rtol=1e-5, atol=0) for rank in found)
            for kind in ("parameters", "exp_avg", "exp_avg_sq", *(f"ema {life}" for life in HALF_LIVES)):
                close(found, expected, kind, 1e-6)
            assert all(rank["steps"]["optimizer"][1] == STEPS for rank in found)
        for rank in ranks:
            assert np.allclose(rank["bf16", stage]["loss"], in_bf16["loss"], rtol=0.01)
            assert np.allclose(rank["bf16", stage]["norm"], in_bf16["norm"], rtol=0.03)


def everything(engine: ZeroEngine) -> dict[str, torch.Tensor]:
    kinds = engine.state()
    return {f"{kind}/{name}": shard.tensor.clone() for kind in kinds for name, shard in kinds[kind].items()}


def output(engine: Engine) -> torch.Tensor:
    torch.manual_seed(0)  # of dropout
    with torch.no_grad():
        return engine(*tiny.images(4)[:2])


def check_skipping(engine: ZeroEngine, world: World) -> None:
    """One rank's gradient is not finite: no rank moves, and every rank is told."""
    before = everything(engine)
    x, t, _ = tiny.images(4)
    for bad in (float("nan"), float("inf")):
        engine.backward((engine(x, t) * (bad if world.rank == 1 else 1.0)).mean(), last=True)
        assert not torch.isfinite(engine.step(1e-2))
        assert tiny.same(everything(engine), before)


def check_lending(engine: ZeroEngine, world: World) -> None:
    """The network runs on what is lent, without dropout, and afterwards all is as it was."""
    x, t, _ = tiny.images(4)
    own, before = everything(engine), output(engine)
    others = {name: shard.like(shard.tensor + 0.1) for name, shard in engine.shards().items()}
    alone = zero_like(engine, others, world)
    with pytest.raises(RuntimeError, match="the probe failed"), engine.lend(others):  # noqa: PT012
        assert torch.allclose(output(engine), alone, rtol=0, atol=2e-6)
        assert tiny.same(everything(engine), own), "lending is not training"
        raise RuntimeError("the probe failed")
    assert tiny.same(everything(engine), own)
    assert torch.equal(output(engine), before)
    assert engine.network.training
    with engine.lend(others):
        slope = x.clone().requires_grad_()
        engine(slope, t).sum().backward()
        assert slope.grad is not None
        assert all(not parameter.grad_fn for parameter in engine.network.parameters())


def zero_like(engine: ZeroEngine, shards: Shards, world: World) -> torch.Tensor:
    """The output of a plain network with these weights."""
    joined = [
        dict(pieces) for pieces in world.everyones({name: (s.start, s.tensor) for name, s in shards.items()})
    ]
    network = small()().eval()
    for name, parameter in network.named_parameters():
        for pieces in joined:
            start, tensor = pieces[name]
            parameter.data.view(-1)[start : start + len(tensor)] = tensor
    with torch.no_grad():
        return network(*tiny.images(4)[:2])


def check_restoring(engine: ZeroEngine, other: ZeroEngine, world: World) -> None:
    """What was saved goes on bit for bit in another engine, which had trained on something else."""
    for number in (7, 8, 9):
        step(other, world, number)
    for kind, shards in engine.state().items():
        copy_shards(shards, other.state()[kind])
    other.refresh()
    for number in (1, 2):
        assert all(map(torch.equal, step(engine, world, number), step(other, world, number)))
    assert tiny.same(everything(engine), everything(other))


def held_bytes(engine: ZeroEngine, ema: Ema) -> int:
    """Memory of all that training keeps, but for the weights that stages 1 and 2 run on."""
    tensors = [shard.tensor for kind in engine.state().values() for shard in kind.values()]
    tensors += [*(run for average in ema.averages.values() for run in average), *engine.network.parameters()]
    tensors += [shard.tensor for shard in engine._copies.values()] if engine.config.stage == 3 else []
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values())


def check_memory(world: World) -> dict[int, float]:
    """Bytes on this rank, as a share of those on all."""
    shares = {}
    for stage in STAGES:
        engine = zero(world, stage, tiny.network(), **({"keep_whole": 0} if stage == 3 else {}))
        ema = Ema(engine.shards(), HALF_LIVES)
        step(engine, world, 0)
        copies = 1 if stage == 3 else world.size  # of the weights that the network runs on
        count = sum(parameter.numel() for parameter in tiny.network()().parameters())
        shares[stage] = held_bytes(engine, ema) / (4 * count * (copies + 3 + len(HALF_LIVES)))
        assert len(ema.weights) <= (1 if stage < 3 else len(engine.shards()))
    return shares


def check_refusals(world: World) -> None:
    x, t, _ = tiny.images(4)
    with pytest.raises(
        ValueError, match=r"differentiates the network by its input .* choose engine=ddp, zero1 or zero2"
    ):
        zero(world, 3)(x.requires_grad_(), t)


def check_second_derivatives(world: World) -> torch.Tensor:
    """The norms of an objective with a derivative by x inside it, in stages 1 and 2."""
    return torch.stack([curved(zero(world, stage, smooth(), accumulation=2), world) for stage in (1, 2)])


def smooth() -> Callable[[], nn.Module]:
    config = RefineNetConfig(4, [1], [1])
    return lambda: config.build(1, 8, 1, 1000)


def curved(engine: Engine, world: World) -> torch.Tensor:
    """The gradient norms of two steps of vᵀ ∇s(x) v + ½ ‖s‖²."""
    norms = []
    for number in range(2):
        count = 8 // world.size // engine.accumulation
        for micro in range(engine.accumulation):
            first = (world.rank * engine.accumulation + micro) * count
            x, t, v = (each[first : first + count] for each in tiny.images(8, number))
            x = x.clone().requires_grad_()
            s = engine(x, t)
            (slope,) = torch.autograd.grad((v * s).sum(), x, create_graph=True)
            loss = ((v * slope).sum() + s.square().sum() / 2) / count / engine.accumulation
            engine.backward(loss, last=micro == engine.accumulation - 1)
        norms.append(engine.step(1e-3))
    return torch.stack(norms)


OPTIONS = {
    1: {"offload_optimizer": True, "checkpoint_activations": True},
    2: {"offload_optimizer": True, "channels_last": True},
    3: {"offload_optimizer": True, "checkpoint_activations": True, "channels_last": True},
}


def with_schedule() -> nn.Module:
    return Scheduled(small()(), Learned(steps=20))


def learned(engine: Engine, world: World) -> torch.Tensor:
    """The gradient norms of two steps of an objective that also reads beta_t from the network."""
    norms = []
    for number in range(2):
        count = 8 // world.size
        x, t, target = (each[world.rank * count :][:count] for each in tiny.images(8, number))
        loss = (engine(x, t) - target).square().mean() + 100 * engine.network.beta().square().sum()
        engine.backward(loss.float(), last=True)
        norms.append(engine.step(1e-3))
    return torch.stack(norms)


def behaviour(world: World) -> dict[str, object]:
    norms = {}
    for stage in STAGES:
        engine = zero(world, stage, accumulation=2, **OPTIONS[stage])
        norms[stage] = torch.stack([step(engine, world, number)[1] for number in range(2)])
        check_skipping(engine, world)
        engine = zero(world, stage, tiny.network(0.5, channels=4, multipliers=(1,)))
        check_skipping(engine, world)
        check_lending(engine, world)
        pair = [zero(world, stage, offload_optimizer=stage == 2, precision=Precision.bf16) for _ in range(2)]
        check_restoring(*pair, world)
    check_refusals(world)
    return {
        "norms": norms,
        "memory": check_memory(world),
        "curved": check_second_derivatives(world),
        "learned": [learned(zero(world, stage, with_schedule), world) for stage in (1, 2)],
    }


def test_every_stage_keeps_the_promises_of_an_engine():
    """They are checked within the ranks; what is told is compared here."""
    first, second = on_ranks(2, behaviour, patience=120.0)
    plain = local()
    expected = [float(step(plain, World(), number)[1]) for number in range(2)]
    for stage in STAGES:
        assert np.allclose(first["norms"][stage], expected, rtol=1e-5), stage
        for share in (first["memory"][stage], second["memory"][stage]):
            assert share == pytest.approx(0.5, rel=0.05), stage
    bent = curved(local(smooth()), World())
    assert all(np.allclose(norms, bent, rtol=1e-5) for norms in first["curved"])
    moved = learned(local(with_schedule), World())
    assert all(np.allclose(norms, moved, rtol=1e-5) for norms in first["learned"])


def test_a_learned_schedule_is_refused_where_its_weights_are_rounded_or_gone():
    with pytest.raises(ValueError, match=r"schedule=learned under engine=zero1 needs engine\.precision=fp32"):
        Zero1Config(precision=Precision.bf16).build(with_schedule, FLAT, 0, World())
    with pytest.raises(ValueError, match=r"schedule=learned .* choose engine=ddp, or engine=zero1 or zero2 with"):
        Zero3Config(precision=Precision.fp32).build(with_schedule, FLAT, 0, World())


@pytest.mark.parametrize("kind", [Zero1Config, Zero2Config, Zero3Config])
def test_without_the_package_the_engine_says_what_to_install(kind: type[ZeroConfig], monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ValueError, match=rf"engine=zero{kind.stage} needs DeepSpeed.*pip install deepspeed"):
        kind().build(small(), FLAT, 0, World())


def test_what_stage_3_cannot_do_is_refused_by_name():
    with pytest.raises(ValueError, match=r"engine\.keep_whole must be at least 0, got -1"):
        Zero3Config(keep_whole=-1)
    with pytest.raises(ValueError, match=r"engine\.compile under engine=zero3 .* engine\.compile=false"):
        Zero3Config(compile=True)


def compiled(world: World) -> list[torch.Tensor]:
    """The gradient norms, eager and compiled."""
    engines = [zero(world, 2, compile=chosen, precision=Precision.bf16) for chosen in (False, True)]
    return [torch.stack([step(engine, world, number)[1] for number in range(2)]) for engine in engines]


@pytest.mark.slow
def test_compiled_gradients_are_the_eager_ones():
    eager, fast = on_ranks(2, compiled, patience=600.0)[0]
    assert np.allclose(fast, eager, rtol=0.02)
