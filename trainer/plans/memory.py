"""The memory of one rank, by what it is for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from trainer.engines.engine import MOMENTS
from trainer.engines.layout import FLOAT32, Layout, Passing
from trainer.plans.activations import Activations
from trainer.plans.weights import Weights, elements


@dataclass(frozen=True)
class Memory:
    """Bytes of the fullest rank, which is the first.

    weights: fp32. copies: of them, in the computing precision, kept between steps. passing: those that are there
    for a while: gathered, or cast. moments: Adam's. averages: all half-lives. buffers: of communication.
    """

    weights: int = 0
    copies: int = 0
    passing: int = 0
    gradients: int = 0
    moments: int = 0
    averages: int = 0
    activations: int = 0
    buffers: int = 0

    @property
    def total(self) -> int:
        """As if all of them were at their most at once: an upper bound."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Memories:
    """Of a rank's device, and of the host for that rank."""

    device: Memory
    host: Memory


def memories(layout: Layout, weights: Weights, held: Activations, averages: int) -> Memories:
    """Of the first rank, with so many averages of the weights."""
    owned = layout.state.count(weights.shapes)
    state = {
        "weights": FLOAT32 * owned,
        "moments": FLOAT32 * owned * len(MOMENTS),
        "averages": FLOAT32 * owned * averages,
        "gradients": layout.gradient_bytes * layout.gradients.count(weights.shapes),
    }
    network = {
        "copies": copies(layout, weights),
        "passing": passing(layout, weights, held),
        "activations": held.peak,
        "buffers": FLOAT32 * min(layout.bucket, weights.count) + layout.stage_buffer_bytes * weights.largest_stage,
    }
    if layout.offloaded:
        return Memories(Memory(**network), Memory(**state))
    return Memories(Memory(**network, **state), Memory())


def copies(layout: Layout, weights: Weights) -> int:
    """Bytes of the weights that a rank keeps to run the network on."""
    if layout.copies is None:
        return 0
    kept = layout.copies.padded(weights.small(layout.keep_whole)) if layout.keep_whole else 0
    return layout.computing_bytes * (layout.copies.count(weights.shapes) + kept)


def passing(layout: Layout, weights: Weights, held: Activations) -> int:
    """Bytes of the weights that a rank holds for a while."""
    if layout.passing is Passing.casts:
        return held.casts
    if layout.passing is Passing.stages:
        return layout.computing_bytes * weights.passing
    if layout.passing is Passing.everything:
        return layout.computing_bytes * (weights.count - elements(weights.small(layout.keep_whole)))
    return 0
