"""Compiled stages: each of them one program, with the gradients of the stages as they are, under every engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from models.objectives import SimpleLoss
from tests.trainer import tiny
from tests.trainer.engines import parity
from tests.trainer.ranks import on_ranks
from trainer.distributed import World
from trainer.engines.ddp import DdpConfig
from trainer.engines.engine import EngineConfig, Precision
from trainer.engines.fsdp import FsdpConfig
from trainer.engines.local import LocalConfig
from trainer.loop import train_step

FLAT = tiny.network(multipliers=(1,))


def backend(is_: str | Callable[..., Any]) -> AbstractContextManager[object]:
    """Within it networks are compiled by another backend: one that makes no machine code takes no time."""
    return patch("torch.compile", partial(torch.compile, backend=is_))


def programs_of_stages(world: World) -> tuple[int, int, int]:
    """How many stages a network has, how many programs were made of them, and of how many a shared cache holds."""
    programs = []

    def kept(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        programs.append(graph)
        return graph.forward

    with backend(kept):
        engine = tiny.engine(tiny.network(multipliers=(1, 2, 2)), compile=True)
        for number in range(2):
            tiny.step(engine, number)
    return len(list(engine.network.stages())), len(programs), torch._dynamo.config.recompile_limit


def gradients(world: World, config: LocalConfig) -> dict[str, torch.Tensor]:
    engine = parity.started(config, world, FLAT)
    x, t, target = tiny.images()
    engine.backward((engine(x, t) - target).square().mean(), last=True)
    return {name: parameter.grad for name, parameter in engine.parameters.items()}


def compiled_gradients(world: World, precision: Precision) -> list[dict[str, torch.Tensor]]:
    configs = [LocalConfig(precision)]
    configs += [LocalConfig(precision, compile=True, checkpoint_activations=each) for each in (False, True)]
    return [gradients(world, config) for config in configs]


def courses(world: World) -> dict[str, Any]:
    how = {"compile": True, "channels_last": True, "checkpoint_activations": True, "accumulation": 2}
    kinds: tuple[type[EngineConfig], ...] = (DdpConfig, FsdpConfig)
    with backend("aot_eager"):
        return {kind.__name__: parity.course(world, kind(Precision.fp32, **how), FLAT, steps=2) for kind in kinds}


def losses_with_dropout(world: World) -> tuple[list[list[torch.Tensor]], int, int]:
    """Of three steps, eager and compiled; the network's stages, and the programs that were made of them."""
    found, programs = [], []

    def kept(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        programs.append(graph)
        return graph.forward

    with backend(kept):
        for compiled in (False, True):
            engine = tiny.engine(tiny.network(dropout=0.5, multipliers=(1,)), compile=compiled)
            diffusion = tiny.diffusion(engine)
            steps = [
                train_step(engine, diffusion, SimpleLoss(), tiny.batch(number), 1e-3, 1) for number in range(3)
            ]
            found.append([report.terms.loss for report in steps])
    return found, len(list(engine.network.stages())), len(programs)


# In processes of their own: the shapes that are checked in this one are not for the compiler to read.


def test_every_stage_is_a_program_however_many_there_are():
    ((stages, programs, shared),) = on_ranks(1, programs_of_stages)
    assert shared < stages == programs


def test_dropout_is_compiled_once_and_drops_the_same_in_every_step():
    (((eager, compiled), stages, programs),) = on_ranks(1, losses_with_dropout)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    assert programs == stages


@pytest.mark.slow
@pytest.mark.parametrize("precision", list(Precision))
def test_compiled_gradients_are_those_of_the_network_as_it_is(precision):
    within = 1e-5 if precision is Precision.fp32 else 0.03
    ((expected, *found),) = on_ranks(1, compiled_gradients, precision)
    largest = max(np.linalg.norm(gradient) for gradient in expected.values())
    for compiled in found:
        for name, gradient in expected.items():
            error = np.linalg.norm(compiled[name] - gradient)
            assert error <= within * (np.linalg.norm(gradient) + 0.1 * largest), name


@pytest.mark.slow
def test_compiled_engines_follow_the_local_one():
    found, spec = on_ranks(2, courses), parity.local(FLAT, steps=2)
    for name in found[0]:
        parity.assert_same_course([rank[name] for rank in found], spec)
