"""Ema: diffusers' EMAModel, and a half-life that halves."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.training_utils import EMAModel
from hypothesis import given
from hypothesis import strategies as some

from trainer.ema import Ema
from trainer.engines.local import wholes
from trainer.schedules import ema_decay, half_life


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in (("a", (50, 30)), ("b", (7,)))}


def ema_of(tensors: dict[str, torch.Tensor], half_lives: list[float]) -> Ema:
    return Ema(wholes(tensors), half_lives)


def averages(ema: Ema, half_life: float | None = None) -> dict[str, torch.Tensor]:
    return {name: shard.whole for name, shard in ema.shards(half_life).items()}


def move(shards: dict[str, torch.Tensor], to: dict[str, torch.Tensor]) -> None:
    """An optimizer's step: the live weights change in place."""
    for name, weight in to.items():
        shards[name].copy_(weight)


def test_it_is_the_average_of_diffusers():
    shards = weights(0)
    ours = ema_of(shards, [half_life(0.9999, batch=128)])
    theirs = EMAModel([torch.nn.Parameter(w) for w in shards.values()], decay=0.9999, min_decay=0.9999)
    theirs.step([torch.nn.Parameter(w) for w in shards.values()])  # their first step is a copy, whatever the decay
    for number in range(1, 20):
        move(shards, to=weights(number))
        ours.update(batch=128)
        theirs.step([torch.nn.Parameter(w) for w in shards.values()])
    for (name, found), expected in zip(averages(ours).items(), theirs.shadow_params, strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-6)  # 19 roundings of float32
        assert not torch.allclose(found, weights(0)[name], rtol=0, atol=1e-4), "nothing was averaged"


def test_it_is_the_weighted_sum_that_defines_it():
    history = [weights(number) for number in range(30)]
    live = weights(0)
    ema = ema_of(live, [64.0, 1000.0])
    for shards in history[1:]:
        move(live, to=shards)
        ema.update(batch=16)
    for life in (64.0, 1000.0):
        decay = 0.5 ** (16 / life)
        shares = [decay**29, *((1 - decay) * decay ** (29 - k) for k in range(1, 30))]
        assert math.isclose(sum(shares), 1)
        for name in ("a", "b"):
            exact = sum(share * shards[name].double() for share, shards in zip(shares, history, strict=True))
            assert torch.allclose(averages(ema, life)[name].double(), exact, rtol=0, atol=2e-6), (life, name)


@given(some.floats(0.01, 0.999999), some.integers(1, 4096))
def test_half_life_and_decay_are_inverses(decay, batch):
    assert math.isclose(ema_decay(half_life(decay, batch), batch), decay, rel_tol=1e-12)


@given(some.floats(1, 1e8), some.integers(1, 512), some.integers(1, 50))
def test_the_decay_of_a_large_batch_is_that_of_its_parts_in_turn(life, batch, parts):
    assert math.isclose(ema_decay(life, batch * parts), ema_decay(life, batch) ** parts, rel_tol=1e-9)


def test_half_is_forgotten_in_a_half_life():
    live = {"w": torch.zeros(3)}
    ema = ema_of(live, [800.0])
    live["w"].fill_(1)
    for _ in range(100):
        ema.update(batch=8)
    assert torch.allclose(averages(ema)["w"], torch.full((3,), 0.5), rtol=0, atol=1e-6)


def test_an_infinite_half_life_never_moves():
    live = weights(0)
    ema = ema_of(live, [math.inf])
    move(live, to=weights(1))
    ema.update(batch=8)
    assert all(torch.equal(averages(ema)[name], weights(0)[name]) for name in ("a", "b"))


def test_the_average_is_a_copy_and_leaves_the_weights_alone():
    shards = weights(0)
    ema = ema_of(shards, [10.0])
    move(shards, to=weights(1))
    assert all(torch.equal(averages(ema)[name], weights(0)[name]) for name in shards)
    ema.update(batch=8)
    assert all(torch.equal(shards[name], weights(1)[name]) for name in shards)


def test_weights_that_touch_in_memory_are_averaged_as_one():
    buffer = torch.arange(12.0)
    shards = {"a": buffer[:4].view(2, 2), "b": buffer[4:4], "c": buffer[4:10], "apart": torch.ones(3)}
    ema = ema_of(shards, [8.0])
    assert [len(run) for run in ema.weights] == [10, 3]
    buffer += 1
    ema.update(batch=8)
    for name, shard in shards.items():
        moved = 0.0 if name == "apart" else 0.5
        assert torch.equal(averages(ema)[name], shard - moved), name
        assert averages(ema)[name].shape == shard.shape


def test_neighbours_in_another_order_stay_apart():
    buffer = torch.arange(6.0)
    ema = ema_of({"late": buffer[3:], "early": buffer[:3]}, [8.0])
    assert [run.tolist() for run in ema.weights] == [[3, 4, 5], [0, 1, 2]]
    assert averages(ema)["late"].tolist() == [3, 4, 5]


def test_the_first_half_life_is_the_default_and_an_unknown_one_is_refused():
    live = weights(0)
    ema = ema_of(live, [500.0, 10.0])
    move(live, to=weights(1))
    ema.update(batch=8)
    assert torch.equal(averages(ema)["a"], averages(ema, 500.0)["a"])
    assert not torch.equal(averages(ema)["a"], averages(ema, 10.0)["a"])
    with pytest.raises(ValueError, match=r"ema\.half_lives has no 7\.0; it has \[500\.0, 10\.0\]"):
        averages(ema, 7.0)


@pytest.mark.parametrize("half_lives", [[], [0.0], [100.0, -1.0], [5.0, 5.0]])
def test_half_lives_that_cannot_be_are_refused(half_lives):
    with pytest.raises(ValueError, match=r"ema\.half_lives"):
        ema_of(weights(0), half_lives)
