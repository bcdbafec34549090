"""Ema: diffusers' EMAModel, and a half-life that halves."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.training_utils import EMAModel
from hypothesis import given
from hypothesis import strategies as some

from trainer.ema import Ema
from trainer.schedules import ema_decay, half_life


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in (("a", (50, 30)), ("b", (7,)))}


def test_it_is_the_average_of_diffusers():
    shards = weights(0)
    ours = Ema(shards, [half_life(0.9999, batch=128)])
    theirs = EMAModel([torch.nn.Parameter(w) for w in shards.values()], decay=0.9999, min_decay=0.9999)
    theirs.step([torch.nn.Parameter(w) for w in shards.values()])  # their first step is a copy, whatever the decay
    for number in range(1, 20):
        shards = weights(number)
        ours.update(shards, batch=128)
        theirs.step([torch.nn.Parameter(w) for w in shards.values()])
    for (name, found), expected in zip(ours.shards().items(), theirs.shadow_params, strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-6)  # 19 roundings of float32
        assert not torch.allclose(found, weights(0)[name], rtol=0, atol=1e-4), "nothing was averaged"


def test_it_is_the_weighted_sum_that_defines_it():
    history = [weights(number) for number in range(30)]
    ema = Ema(history[0], [64.0, 1000.0])
    for shards in history[1:]:
        ema.update(shards, batch=16)
    for life in (64.0, 1000.0):
        decay = 0.5 ** (16 / life)
        shares = [decay**29, *((1 - decay) * decay ** (29 - k) for k in range(1, 30))]
        assert math.isclose(sum(shares), 1)
        for name in ("a", "b"):
            exact = sum(share * shards[name].double() for share, shards in zip(shares, history, strict=True))
            assert torch.allclose(ema.shards(life)[name].double(), exact, rtol=0, atol=2e-6), (life, name)


@given(some.floats(0.01, 0.999999), some.integers(1, 4096))
def test_half_life_and_decay_are_inverses(decay, batch):
    assert math.isclose(ema_decay(half_life(decay, batch), batch), decay, rel_tol=1e-12)


@given(some.floats(1, 1e8), some.integers(1, 512), some.integers(1, 50))
def test_the_decay_of_a_large_batch_is_that_of_its_parts_in_turn(life, batch, parts):
    assert math.isclose(ema_decay(life, batch * parts), ema_decay(life, batch) ** parts, rel_tol=1e-9)


def test_half_is_forgotten_in_a_half_life():
    zero, one = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    ema = Ema(zero, [800.0])
    for _ in range(100):
        ema.update(one, batch=8)
    assert torch.allclose(ema.shards()["w"], torch.full((3,), 0.5), rtol=0, atol=1e-6)


def test_an_infinite_half_life_never_moves():
    ema = Ema(weights(0), [math.inf])
    ema.update(weights(1), batch=8)
    assert all(torch.equal(ema.shards()[name], weights(0)[name]) for name in ("a", "b"))


def test_the_average_is_a_copy_and_leaves_the_weights_alone():
    shards = weights(0)
    ema = Ema(shards, [10.0])
    ema.update(weights(1), batch=8)
    assert all(torch.equal(shards[name], weights(0)[name]) for name in shards)


def test_names_may_come_in_another_order():
    ema = Ema(weights(0), [1e-3])  # forgets everything at once
    ema.update(dict(reversed(weights(1).items())), batch=8)
    assert all(torch.allclose(ema.shards()[name], weights(1)[name]) for name in ("a", "b"))


def test_the_first_half_life_is_the_default_and_an_unknown_one_is_refused():
    ema = Ema(weights(0), [500.0, 10.0])
    ema.update(weights(1), batch=8)
    assert torch.equal(ema.shards()["a"], ema.shards(500.0)["a"])
    assert not torch.equal(ema.shards()["a"], ema.shards(10.0)["a"])
    with pytest.raises(ValueError, match=r"ema\.half_lives has no 7\.0; it has \[500\.0, 10\.0\]"):
        ema.shards(7.0)


@pytest.mark.parametrize("half_lives", [[], [0.0], [100.0, -1.0], [5.0, 5.0]])
def test_half_lives_that_cannot_be_are_refused(half_lives):
    with pytest.raises(ValueError, match=r"ema\.half_lives"):
        Ema(weights(0), half_lives)
