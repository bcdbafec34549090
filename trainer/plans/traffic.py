"""What one rank sends in a step, by collective."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.engines.layout import Collective, Layout
from trainer.plans.weights import Weights


@dataclass(frozen=True)
class Sent:
    """A collective: what it carries each time, with padding, how often in a step, and what each rank sends for it.

    By a ring algorithm, in which it receives as much. Other algorithms send less often, but hardly fewer bytes.
    """

    operation: str
    what: str
    ranks: int
    carried: int
    times: int
    sent: int


def traffic(layout: Layout, weights: Weights, accumulation: int) -> list[Sent]:
    """Of one step of so many micro-batches. The norm, the losses and the flags are left out: a few bytes."""
    return [sent(collective, weights, accumulation) for collective in layout.collectives]


def sent(collective: Collective, weights: Weights, accumulation: int) -> Sent:
    """Of one step."""
    among = weights.in_stages if collective.stages_only else weights.shapes
    shapes = [shape for shape in among if math.prod(shape) in collective.sizes]
    elements = collective.cut.count(shapes) if collective.of_place else collective.cut.padded(shapes)
    carried = collective.bytes_each * elements
    times = accumulation if collective.each_micro_batch else 1
    ranks, rounds = collective.ranks, collective.operation.rounds
    share = rounds * carried * (ranks - 1) // ranks
    return Sent(collective.operation.value, collective.what, ranks, carried, times, times * share)
