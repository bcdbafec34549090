"""DdpEngine: the course of the local engine, in several real processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from models.diffusion import Chain, Diffusion
from models.ladder import NoiseLadder
from models.networks.dense import MlpConfig, RadialBasisConfig
from models.networks.scheduled import Scheduled
from models.objectives import LowerBound, Objective
from models.parameterizations import Score
from models.processes import GaussianProcess
from models.reverse import GaussianKernel
from models.schedules import Learned, Live
from models.score_matching import SlicedScoreMatching
from tests.trainer.engines import parity
from tests.trainer.ranks import on_ranks, plain
from trainer.distributed import World
from trainer.engines.ddp import DdpConfig
from trainer.engines.engine import Engine, Precision
from trainer.engines.local import LocalConfig, LocalEngine

T = 6


def score_network() -> nn.Module:
    return MlpConfig([16, 16]).build(1, 8, 1, T)


def slicing(engine: Engine) -> tuple[Chain, Objective]:
    return Diffusion(NoiseLadder(T), Score(), engine), SlicedScoreMatching()


def scheduled_network() -> nn.Module:
    return Scheduled(RadialBasisConfig(4).build(1, 8, 2, T), Learned(T, 1e-3))


def bounding(engine: Engine) -> tuple[Chain, Objective]:
    return Chain(GaussianProcess(Live(T, now=engine.network.beta)), GaussianKernel(), engine), LowerBound()


def courses(world: World) -> dict[str, Any]:
    once, twice = DdpConfig(Precision.fp32), DdpConfig(Precision.fp32, accumulation=2)
    remade = DdpConfig(Precision.fp32, accumulation=2, checkpoint_activations=True, channels_last=True)
    return {
        "once": parity.course(world, once),
        "twice": parity.course(world, twice),
        "disturbed": parity.course(world, twice, between=parity.disturb),
        "recomputed": parity.course(world, remade),
        "bf16": parity.course(world, DdpConfig(accumulation=2)),
        "slicing": parity.course(world, twice, score_network, learning=slicing),
        "bounding": parity.course(world, once, scheduled_network, learning=bounding),
        "initial": parity.initial_weights(world, once),
    }


def on_three(world: World) -> dict[str, Any]:
    return {str(each): parity.course(world, DdpConfig(Precision.fp32, each)) for each in (1, 2)}


@pytest.fixture(scope="module")
def two() -> dict[str, list[Any]]:
    found = on_ranks(2, courses)
    return {name: [rank[name] for rank in found] for name in found[0]}


def test_two_ranks_follow_the_local_engine(two):
    """Also where in between a rank's loss is not finite, others' weights are lent, and a probe fails."""
    spec = parity.local()
    for name in ("once", "twice", "disturbed", "recomputed"):
        parity.assert_same_course(two[name], spec)


def test_three_ranks_follow_the_local_engine():
    found, spec = on_ranks(3, on_three), parity.local()
    for accumulation in found[0]:
        parity.assert_same_course([rank[accumulation] for rank in found], spec)


def test_in_bf16_they_stay_close_to_it(two):
    spec = parity.local(precision=Precision.bf16)
    parity.assert_close_course(two["bf16"], spec)


def test_what_differentiates_the_network_twice_is_trained(two):
    parity.assert_same_course(two["slicing"], parity.local(score_network, learning=slicing))


def test_a_schedule_is_learned_outside_the_networks_forward_pass(two):
    spec = parity.local(scheduled_network, learning=bounding)
    assert np.ptp(spec["kinds"]["parameters"]["moved"][2]) > 0
    parity.assert_same_course(two["bounding"], spec)


def test_the_initial_weights_are_those_of_the_local_engine(two):
    spec = plain(parity.initial_weights(World(), LocalConfig()))
    assert all(parity.same(rank, spec) for rank in two["initial"])


def test_a_single_process_needs_no_other():
    engine = DdpConfig(Precision.fp32).build(score_network, parity.OPTIMIZER, 0, World())
    assert type(engine) is LocalEngine
