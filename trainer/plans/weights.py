"""The shapes of a network's parameters, as engines group them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from trainer.engines.layout import Shape


@dataclass(frozen=True)
class Weights:
    """shapes: of all parameters, in the network's order. stages: of each stage's. rest: of what no stage has."""

    shapes: tuple[Shape, ...]
    stages: tuple[tuple[Shape, ...], ...]
    rest: tuple[Shape, ...]

    @classmethod
    def of(cls, network: nn.Module) -> Weights:
        """Of a network, which may be on the meta device."""
        stages = [list(stage.parameters()) for stage in network.stages()]
        within = {id(parameter) for stage in stages for parameter in stage}
        return cls(
            shapes_of(network.parameters()),
            tuple(shapes_of(stage) for stage in stages),
            shapes_of(each for each in network.parameters() if id(each) not in within),
        )

    @property
    def count(self) -> int:
        """Of all elements."""
        return elements(self.shapes)

    def small(self, most: int) -> tuple[Shape, ...]:
        """Of the parameters that have at most so many elements."""
        return tuple(shape for shape in self.shapes if math.prod(shape) <= most)

    @property
    def in_stages(self) -> tuple[Shape, ...]:
        """Of the parameters of all stages."""
        return tuple(shape for stage in self.stages for shape in stage)

    @property
    def largest_stage(self) -> int:
        """Its elements; of a network without stages, all."""
        return max(map(elements, self.stages), default=self.count)

    @property
    def passing(self) -> int:
        """The most elements of two stages in a row, one at work and the next on its way, and of the rest."""
        sizes = [elements(stage) for stage in self.stages]
        return elements(self.rest) + max((sum(pair) for pair in pairwise(sizes)), default=sum(sizes))


def shapes_of(parameters: Sequence[nn.Parameter]) -> tuple[Shape, ...]:
    """Of each."""
    return tuple(tuple(parameter.shape) for parameter in parameters)


def elements(shapes: Sequence[Shape]) -> int:
    """Of all together."""
    return sum(map(math.prod, shapes))
