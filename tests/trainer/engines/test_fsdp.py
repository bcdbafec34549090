"""FsdpEngine: the course of the local engine, in several real processes that each own a part of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from models.diffusion import Chain, Diffusion
from models.ladder import NoiseLadder
from models.networks.dense import MlpConfig, RadialBasisConfig
from models.networks.scheduled import Scheduled
from models.objectives import Objective
from models.parameterizations import Score
from models.schedules import Learned
from models.score_matching import DenoisingScoreMatching, SlicedScoreMatching
from tests.trainer import tiny
from tests.trainer.engines import parity
from tests.trainer.ranks import on_ranks, plain
from trainer.distributed import World
from trainer.engines.engine import Engine, Precision
from trainer.engines.fsdp import FsdpConfig
from trainer.engines.local import LocalConfig, LocalEngine
from trainer.loop import train_step

ONCE, TWICE = FsdpConfig(Precision.fp32), FsdpConfig(Precision.fp32, accumulation=2)


def score_network() -> nn.Module:
    return MlpConfig([16, 16]).build(1, 8, 1, 6)


def matching(engine: Engine) -> tuple[Chain, Objective]:
    return Diffusion(NoiseLadder(6), Score(), engine), DenoisingScoreMatching()


def slicing_is_refused(world: World) -> None:
    engine = parity.started(ONCE, world, score_network)
    (diffusion, _), batch = matching(engine), parity.share(tiny.batch(0, parity.BATCH), world)
    with pytest.raises(
        ValueError, match=r"differentiates the network by its input.* choose engine=ddp, zero1 or zero2"
    ):
        train_step(engine, diffusion, SlicedScoreMatching(), batch, 1e-3, seed=1)


def courses(world: World) -> dict[str, Any]:
    kept = FsdpConfig(Precision.fp32, reshard_after_forward=False)
    remade = FsdpConfig(Precision.fp32, accumulation=2, checkpoint_activations=True, channels_last=True)
    slicing_is_refused(world)
    return {
        "once": parity.course(world, ONCE),
        "twice": parity.course(world, TWICE, between=parity.disturb),
        "kept": parity.course(world, kept, between=parity.disturb),
        "recomputed": parity.course(world, remade),
        "dense": parity.course(world, ONCE, score_network, learning=matching, steps=2),
        "bf16": parity.course(world, FsdpConfig(), steps=3),
        "initial": parity.initial_weights(world, ONCE),
        "bytes": parity.bytes_owned(world, ONCE),
    }


def on_three(world: World) -> dict[str, Any]:
    return {
        "once": parity.course(world, ONCE),
        "twice": parity.course(world, TWICE),
        "initial": parity.initial_weights(world, ONCE),
    }


def on_four(world: World) -> dict[str, Any]:
    once, twice = (FsdpConfig(Precision.fp32, accumulation, replicas=2) for accumulation in (1, 2))
    return {
        "once": parity.course(world, once),
        "twice": parity.course(world, twice, between=parity.disturb),
        "initial": parity.initial_weights(world, once),
        "bytes": parity.bytes_owned(world, ONCE),
        "bytes of a replica": parity.bytes_owned(world, once),
    }


def by_name(found: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [rank[name] for rank in found] for name in found[0]}


@pytest.fixture(scope="module")
def two() -> dict[str, list[Any]]:
    return by_name(on_ranks(2, courses))


@pytest.fixture(scope="module")
def three() -> dict[str, list[Any]]:
    return by_name(on_ranks(3, on_three))


@pytest.fixture(scope="module")
def four() -> dict[str, list[Any]]:
    return by_name(on_ranks(4, on_four))


@pytest.mark.parametrize("ranks", ["two", "three", "four"])
def test_they_follow_the_local_engine(ranks, request):
    """Also where in between a rank's loss is not finite, others' weights are lent, and a probe fails.

    Three ranks share unevenly, and all share parameters of a single row; four are two replicas on two each.
    """
    found, spec = request.getfixturevalue(ranks), parity.local()
    for name in {"once", "twice", "kept", "recomputed"} & found.keys():
        parity.assert_same_course(found[name], spec)


def test_a_dense_network_is_sharded_too(two):
    parity.assert_same_course(two["dense"], parity.local(score_network, learning=matching, steps=2))


def test_uneven_shares_are_stretches_without_padding(three):
    one_row = [rank["kinds"]["parameters"]["conv_out.weight"] for rank in three["once"]]
    assert [(start, len(values)) for start, _, values in one_row] == [(0, 72), (72, 0), (72, 0)]
    eight_rows = [rank["kinds"]["exp_avg"]["conv_in.weight"] for rank in three["once"]]
    assert [(start, len(values)) for start, _, values in eight_rows] == [(0, 27), (27, 27), (54, 18)]


def test_in_bf16_they_stay_close_to_it(two):
    parity.assert_close_course(two["bf16"], parity.local(precision=Precision.bf16, steps=3))


def test_the_initial_weights_are_those_of_the_local_engine(two, three, four):
    spec = parity.joined([plain(parity.initial_weights(World(), LocalConfig()))])
    for found in (two, three, four):
        wholes = parity.joined(found["initial"])
        assert all(np.array_equal(wholes[name], whole) for name, whole in spec.items())


def test_each_rank_holds_its_part_of_weights_moments_and_averages(two, four):
    whole = parity.bytes_owned(World(), LocalConfig())
    for found, parts in ((two["bytes"], 2), (four["bytes"], 4), (four["bytes of a replica"], 2)):
        assert all(0.9 < rank / (whole / parts) < 1.1 for rank in found), (found, whole)


def scheduled_network() -> nn.Module:
    return Scheduled(RadialBasisConfig(4).build(1, 8, 2, 6), Learned(6))


@pytest.mark.parametrize(
    ("values", "build", "world", "message"),
    [
        (
            {"replicas": 2},
            tiny.network(),
            World(0, 3),
            r"engine\.replicas must divide the number of ranks, 3, got 2",
        ),
        (
            {},
            scheduled_network,
            World(0, 2),
            r"=learned reads .* choose engine=ddp, or engine=zero1 or zero2 with",
        ),
    ],
    ids=["replicas", "learned schedule"],
)
def test_what_cannot_be_sharded_is_refused(values, build, world, message):
    with pytest.raises(ValueError, match=message):
        FsdpConfig(**values).build(build, parity.OPTIMIZER, 0, world)


def test_replicas_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match=r"engine\.replicas must be at least 1, got 0"):
        FsdpConfig(replicas=0)


def test_a_single_process_needs_no_other():
    for network in (tiny.network(), scheduled_network):
        assert type(ONCE.build(network, parity.OPTIMIZER, 0, World())) is LocalEngine
