"""What a rank of ZeRO owns: parts of the parameters, side by side in flat tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.distributed import World
from trainer.engines.engine import MOMENTS
from trainer.engines.layout import Cut, Elements, Flat, Shape
from trainer.optimizers import adam_state
from trainer.shard import Shard, Shards


@dataclass(frozen=True)
class Place:
    """The elements of a parameter of `shape` that a rank owns; in its flat tensor they begin at `offset`."""

    shape: Shape
    elements: range
    offset: int

    def of(self, flat: Tensor) -> Shard:
        """The piece, sharing the flat tensor's memory."""
        stop = self.offset + len(self.elements)
        return Shard(flat.detach()[self.offset : stop], self.elements.start, self.shape)


Places = Mapping[str, Place]


def side_by_side(shapes: Mapping[str, Shape], cut: Cut, rank: int, room: int = 0) -> dict[str, Place]:
    """Where a rank's parts lie, one after the other: each in as much room as the part of rank `room` takes."""
    each = list(shapes.values())
    rooms = [len(elements) for elements in cut.owned(each, room)]
    places = zip(shapes, each, cut.owned(each, rank), accumulate(rooms, initial=0), strict=False)
    return {name: Place(shape, elements, offset) for name, shape, elements, offset in places}


def pieces(places: Places, flat: Tensor) -> Shards:
    """What a rank's flat tensor holds, by parameter; what it is padded with is nobody's."""
    return {name: place.of(flat) for name, place in places.items()}


class Parts(ABC):
    """A rank's parts of all parameters, each in one flat tensor and padded.

    masters: the fp32 weights, that the optimizer moves. copies: those that the network runs on, or is given.
    places: which elements of which parameter they are.
    """

    masters: Tensor
    copies: Tensor
    places: Places

    def state(self, optimizer: torch.optim.Adam) -> dict[str, Shards]:
        """What a checkpoint holds: views of the flat tensors that the optimizer goes over."""
        held = adam_state(optimizer)[self.masters]
        flats = {"parameters": self.masters, **{kind: held[kind] for kind in MOMENTS}}
        state: dict[str, Shards] = {kind: pieces(self.places, flat) for kind, flat in flats.items()}
        return {**state, "steps": {"optimizer": Shard.of_whole(held["step"])}}

    @abstractmethod
    def release(self) -> None:
        """Makes the copies ready to be overwritten."""

    @abstractmethod
    def publish(self) -> None:
        """Makes the network run on the copies, as they are now on every rank."""


class Together(Parts):
    """Those of stages 1 and 2: every rank has the whole network to run on, of which `copies` is its part."""

    def __init__(self, zero: Any, shapes: Mapping[str, Shape], world: World) -> None:
        zero.scaled_global_norm = no_norm
        (self.masters,), (self._flat,) = zero.single_partition_of_fp32_groups, zero.bit16_groups_flat
        self.copies = zero.parallel_partitioned_bit16_groups[0][world.rank]
        cut = Flat(world.size)
        assert self.masters.numel() == cut.length(list(shapes.values()))
        self.places = side_by_side(shapes, cut, world.rank, room=world.rank)

    def release(self) -> None:
        pass

    def publish(self) -> None:
        dist.all_gather_into_tensor(self._flat, self.copies)


class Apart(Parts):
    """Those of stage 3: the network's weights are gathered from all ranks' copies as it runs."""

    def __init__(self, zero: Any, shapes: Mapping[str, Shape], world: World) -> None:
        zero._get_norm_groups = lambda: [no_norm()]
        self._zero = zero
        (self.masters,), (self.copies,) = zero.fp32_partitioned_groups_flat, zero.fp16_partitioned_groups_flat
        assert self.masters.data_ptr() != self.copies.data_ptr()
        # The last of a parameter's parts may be shorter than the others; its room is not.
        self.places = side_by_side(shapes, Elements(world.size), world.rank)
        zero.optimizer.param_groups[0]["params"] = [self.masters]

    def release(self) -> None:
        self._zero._partition_all_parameters()

    def publish(self) -> None:
        kept_whole = self._zero.persistent_parameters
        if kept_whole:
            kept_whole[0].all_gather(kept_whole)


def no_norm() -> Tensor:
    """In the place of DeepSpeed's own norm of the gradient, which would wait for the device."""
    return torch.zeros(())
