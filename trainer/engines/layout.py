"""How an engine cuts what belongs to the weights among its ranks, and what it sends: what a plan is made of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]

FLOAT32 = 4  # bytes
ANY = range(2**63 - 1)  # number of elements


@dataclass(frozen=True)
class Cut(ABC):
    """A way to cut the parameters of a network among `ways` places. No later place holds more than the first."""

    ways: int = 1

    @abstractmethod
    def owned(self, shapes: Sequence[Shape], place: int) -> list[range]:
        """The elements of each parameter, counted row by row, that this place holds."""

    def count(self, shapes: Sequence[Shape], place: int = 0) -> int:
        """How many elements this place holds of all parameters together."""
        return sum(len(piece) for piece in self.owned(shapes, place))

    def pieces(self, shapes: Sequence[Shape]) -> int:
        """How many pieces all parameters together are in, empty ones left out."""
        return sum(len(piece) > 0 for place in range(self.ways) for piece in self.owned(shapes, place))

    def padded(self, shapes: Sequence[Shape]) -> int:
        """The elements of all places, each padded to the first: what a collective over them carries."""
        return self.ways * self.count(shapes)


class Whole(Cut):
    """All of every parameter, at every place."""

    def owned(self, shapes: Sequence[Shape], place: int) -> list[range]:
        return [range(math.prod(shape)) for shape in shapes]


class Rows(Cut):
    """Each parameter by rows: ceil(rows / ways) at each place, fewer or none at the last ones."""

    def owned(self, shapes: Sequence[Shape], place: int) -> list[range]:
        return [self._stretch(shape, place) for shape in shapes]

    def _stretch(self, shape: Shape, place: int) -> range:
        rows = shape[0] if shape else 1
        each, row = -(-rows // self.ways), math.prod(shape[1:])
        return range(min(place * each, rows) * row, min((place + 1) * each, rows) * row)


class Elements(Cut):
    """Each parameter by elements, evenly: ceil(elements / ways) at each place."""

    def owned(self, shapes: Sequence[Shape], place: int) -> list[range]:
        counts = [math.prod(shape) for shape in shapes]
        each = [-(-count // self.ways) for count in counts]
        return [
            range(min(place * n, count), min((place + 1) * n, count))
            for n, count in zip(each, counts, strict=True)
        ]


@dataclass(frozen=True)
class Flat(Cut):
    """All parameters one after the other, cut evenly into stretches of a multiple of `alignment` elements."""

    alignment: int = 2

    def length(self, shapes: Sequence[Shape]) -> int:
        """Of a place's stretch, with what it is padded with."""
        return -(-sum(map(math.prod, shapes)) // (self.ways * self.alignment)) * self.alignment

    def owned(self, shapes: Sequence[Shape], place: int) -> list[range]:
        counts, each = [math.prod(shape) for shape in shapes], self.length(shapes)
        start, stop, pieces, before = place * each, (place + 1) * each, [], 0
        for count in counts:
            first, last = (min(max(edge - before, 0), count) for edge in (start, stop))
            pieces.append(range(first, last))
            before += count
        return pieces


class Operation(Enum):
    """What ranks do together. By a ring each sends (ranks - 1) / ranks of the tensor, in an all-reduce twice."""

    all_gather = "all-gather"
    reduce_scatter = "reduce-scatter"
    all_reduce = "all-reduce"

    @property
    def rounds(self) -> int:
        """Of the ring."""
        return 2 if self is Operation.all_reduce else 1


@dataclass(frozen=True)
class Collective:
    """What is exchanged in a step: `what`, of the weights or the gradients, in `bytes_each` an element.

    cut: the places that hold it. ranks: that take part. of_place: it is one place's piece, not all of them.
    each_micro_batch: not once a step. stages_only: leaves out what lies outside of the network's stages.
    sizes: how many elements a parameter may have to take part.
    """

    operation: Operation
    what: str
    bytes_each: int
    cut: Cut
    ranks: int
    of_place: bool = False
    each_micro_batch: bool = False
    stages_only: bool = False
    sizes: range = ANY


class Passing(Enum):
    """What a rank holds of the weights for a while, in the computing precision, beside what it keeps.

    casts: those that autocast makes, to the end of the micro-batch. stages: two of the network's stages, and what
    lies outside of them. everything: the whole network.
    """

    nothing = "nothing"
    casts = "casts"
    stages = "stages"
    everything = "everything"


@dataclass(frozen=True)
class Layout:
    """Where an engine of `ranks` ranks keeps what belongs to the weights, and what it sends.

    state: fp32 weights, Adam's moments and every average. gradients: as they wait for the step.
    copies: of the weights in the computing precision, kept between steps; None where there are none.
    keep_whole: parameters of at most so many elements are whole in copies, padded, beside the rank's part of them.
    passing: what there is of them for a while. offloaded: state and gradients lie in the host's memory.
    bucket: elements that are sent at a time, in fp32. stage_buffer_bytes: for each element of the largest stage.
    """

    ranks: int
    state: Cut
    gradients: Cut
    gradient_bytes: int = FLOAT32
    computing_bytes: int = FLOAT32
    copies: Cut | None = None
    keep_whole: int = 0
    passing: Passing = Passing.nothing
    offloaded: bool = False
    bucket: int = 0
    stage_buffer_bytes: int = 0
    collectives: tuple[Collective, ...] = ()


def whole(ranks: int, computing_bytes: int) -> Layout:
    """Everything on every rank; of more than one, the gradient is averaged once a step (local, ddp)."""
    averaged = Collective(Operation.all_reduce, "gradients", FLOAT32, Whole(), ranks)
    return Layout(
        ranks,
        state=Whole(),
        gradients=Whole(),
        computing_bytes=computing_bytes,
        passing=Passing.casts,
        collectives=(averaged,) if ranks > 1 else (),
    )


def rows(ranks: int, replicas: int, computing_bytes: int, reshard: bool = True) -> Layout:
    """Rows of everything; stages are gathered as they run, and their gradients reduced as they come (fsdp).

    reshard: a stage is let go after its forward pass and gathered again for the backward one. The gradient of each
    micro-batch is reduced at once within a replica, and once a step among replicas.
    """
    cut = Rows(ranks // replicas)
    gathered = Collective(
        Operation.all_gather, "weights, forward", computing_bytes, cut, cut.ways, each_micro_batch=True
    )
    again = Collective(
        Operation.all_gather,
        "weights, backward",
        computing_bytes,
        cut,
        cut.ways,
        each_micro_batch=True,
        stages_only=True,
    )
    reduced = Collective(Operation.reduce_scatter, "gradients", FLOAT32, cut, cut.ways, each_micro_batch=True)
    averaged = Collective(Operation.all_reduce, "gradients of replicas", FLOAT32, cut, replicas, of_place=True)
    return Layout(
        ranks,
        state=cut,
        gradients=cut,
        computing_bytes=computing_bytes,
        passing=Passing.stages if reshard else Passing.everything,
        # Of a stage: its rows as they were gathered, its whole gradient, and that in fp32, to be sent.
        stage_buffer_bytes=2 * computing_bytes + FLOAT32,
        collectives=(gathered, *((again,) if reshard else ()), reduced, *((averaged,) if replicas > 1 else ())),
    )


def flat(ranks: int, stage: int, computing_bytes: int, sent_bytes: int, offloaded: bool, bucket: int) -> Layout:
    """The weights on every rank, and a stretch of the state; of the gradients too, in stage 2 (zero1, zero2).

    sent_bytes: of a gradient's element on its way. The buckets of gradients are reduced whole, and each rank keeps
    its part, in stage 1 once a step, in stage 2 for each micro-batch.
    """
    cut, partial = Flat(ranks), stage == 2
    reduced = Collective(Operation.all_reduce, "gradients", sent_bytes, Whole(), ranks, each_micro_batch=partial)
    gathered = Collective(Operation.all_gather, "weights", computing_bytes, cut, ranks)
    return Layout(
        ranks,
        state=cut,
        gradients=cut if partial else Whole(),
        computing_bytes=computing_bytes,
        copies=Whole(),
        offloaded=offloaded,
        bucket=bucket,
        collectives=(reduced, gathered) if ranks > 1 else (),
    )


def elements(
    ranks: int,
    computing_bytes: int,
    sent_bytes: int,
    offloaded: bool,
    bucket: int,
    passing: Passing,
    keep_whole: int = 0,
) -> Layout:
    """Elements of everything; modules are gathered as they run (zero3). passing: how much of them is held.

    Parameters of at most `keep_whole` elements are gathered after the step instead.
    """
    cut, again = Elements(ranks), passing is not Passing.everything
    small = Collective(Operation.all_gather, "weights kept whole", computing_bytes, cut, ranks)
    small = replace(small, sizes=range(keep_whole + 1))
    large = replace(small, what="weights, forward", sizes=range(keep_whole + 1, ANY.stop), each_micro_batch=True)
    back = replace(large, what="weights, backward")
    gathered = [large, *([back] if again else []), *([small] if keep_whole else [])]
    reduced = Collective(Operation.reduce_scatter, "gradients", sent_bytes, cut, ranks, each_micro_batch=True)
    return Layout(
        ranks,
        state=cut,
        gradients=cut,
        computing_bytes=computing_bytes,
        copies=cut,
        keep_whole=keep_whole,
        passing=passing,
        offloaded=offloaded,
        bucket=bucket,
        collectives=(*gathered, reduced) if ranks > 1 else (),
    )
