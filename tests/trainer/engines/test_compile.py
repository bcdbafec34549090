"""Compiled stages: each of them one program, with the gradients of the stages as they are, under every engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.trainer import tiny
from tests.trainer.engines import parity
from tests.trainer.ranks import on_ranks
from trainer.distributed import World
from trainer.engines.ddp import DdpConfig
from trainer.engines.engine import EngineConfig, Precision
from trainer.engines.fsdp import FsdpConfig
from trainer.engines.local import LocalConfig

FLAT = tiny.network(multipliers=(1,))


def backend(is_: str | Callable[..., Any]) -> AbstractContextManager[object]:
    """Within it networks are compiled by another backend: one that makes no machine code takes no time."""
    return patch("torch.compile", partial(torch.compile, backend=is_))


def test_every_stage_is_a_program_however_many_there_are():
    programs = []

    def kept(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        programs.append(graph)
        return graph.forward

    with backend(kept):
        engine = tiny.engine(tiny.network(multipliers=(1, 2, 2)), compile=True)
        for number in range(2):
            tiny.step(engine, number)
    stages = list(engine.network.stages())
    assert len(stages) > torch._dynamo.config.recompile_limit
    assert len(programs) == len(stages)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("precision", list(Precision))
def test_compiled_gradients_are_those_of_the_network_as_it_is(precision, recompute):
    gradients = {}
    for compiled in (False, True):
        engine = tiny.engine(FLAT, precision=precision, compile=compiled, checkpoint_activations=recompute)
        x, t, target = tiny.images()
        engine.backward((engine(x, t) - target).square().mean(), last=True)
        gradients[compiled] = {name: parameter.grad for name, parameter in engine.parameters.items()}
    largest = max(float(gradient.norm()) for gradient in gradients[False].values())
    for name, gradient in gradients[False].items():
        error = float((gradients[True][name] - gradient).norm())
        within = 1e-5 if precision is Precision.fp32 else 0.03
        assert error <= within * float(gradient.norm()) + within * 0.1 * largest, name


def courses(world: World) -> dict[str, Any]:
    kinds: tuple[type[EngineConfig], ...] = (DdpConfig, FsdpConfig)
    how = {"compile": True, "channels_last": True, "accumulation": 2}
    with backend("aot_eager"):
        return {
            f"{kind.__name__} {recompute}": parity.course(
                world, kind(Precision.fp32, checkpoint_activations=recompute, **how), FLAT
            )
            for kind in kinds
            for recompute in (False, True)
        }


def test_compiled_engines_follow_the_local_one():
    found, spec = on_ranks(2, courses), parity.local(FLAT)
    for name in found[0]:
        parity.assert_same_course([rank[name] for rank in found], spec)


def test_the_local_engine_follows_itself_when_compiled():
    with backend("aot_eager"):
        compiled = parity.plain(parity.course(World(), LocalConfig(Precision.fp32, compile=True), FLAT))
    parity.assert_same_course([compiled], parity.local(FLAT))
