"""What a rank of ZeRO owns: parts of the parameters, side by side in flat tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.distributed import World
from trainer.engines.engine import MOMENTS
from trainer.optimizers import adam_state
from trainer.shard import Shard, Shards


@dataclass(frozen=True)
class Cut:
    """Elements start .. stop - 1 of a parameter of `shape`; in the rank's flat tensor they begin at `offset`."""

    shape: tuple[int, ...]
    start: int
    stop: int
    offset: int

    def of(self, flat: Tensor) -> Shard:
        """The piece, sharing the flat tensor's memory."""
        return Shard(flat.detach()[self.offset : self.offset + self.stop - self.start], self.start, self.shape)


Cuts = Mapping[str, Cut]


def cut_row(shapes: Mapping[str, tuple[int, ...]], rank: int, length: int) -> dict[str, Cut]:
    """The parameters in one row, cut into ranks' parts of `length`: most are whole on a single rank."""
    cuts, before = {}, -rank * length  # where the parameter begins, counted from where this rank's part begins
    for name, shape in shapes.items():
        count = prod(shape)
        start, stop = (min(max(edge - before, 0), count) for edge in (0, length))
        cuts[name] = Cut(shape, start, stop, max(before, 0) if stop > start else 0)
        before += count
    return cuts


def cut_each(shapes: Mapping[str, tuple[int, ...]], rank: int, size: int) -> dict[str, Cut]:
    """Each parameter cut among all ranks. The last of its parts may be shorter; its room is not."""
    cuts, offset = {}, 0
    for name, shape in shapes.items():
        count = prod(shape)
        length = -(-count // size)
        cuts[name] = Cut(shape, min(rank * length, count), min((rank + 1) * length, count), offset)
        offset += length
    return cuts


def pieces(cuts: Cuts, flat: Tensor) -> Shards:
    """What a rank's flat tensor holds, by parameter; what it is padded with is nobody's."""
    return {name: cut.of(flat) for name, cut in cuts.items()}


class Parts(ABC):
    """A rank's parts of all parameters, each in one flat tensor and padded.

    masters: the fp32 weights, that the optimizer moves. copies: those that the network runs on, or is given.
    cuts: which elements of which parameter they are.
    """

    masters: Tensor
    copies: Tensor
    cuts: Cuts

    @abstractmethod
    def release(self) -> None:
        """Makes the copies ready to be overwritten."""

    @abstractmethod
    def publish(self) -> None:
        """Makes the network run on the copies, as they are now on every rank."""


class Together(Parts):
    """Those of stages 1 and 2: every rank has the whole network to run on, of which `copies` is its part."""

    def __init__(self, zero: Any, shapes: Mapping[str, tuple[int, ...]], world: World) -> None:
        zero.scaled_global_norm = no_norm
        (self.masters,), (self._flat,) = zero.single_partition_of_fp32_groups, zero.bit16_groups_flat
        self.copies = zero.parallel_partitioned_bit16_groups[0][world.rank]
        self.cuts = cut_row(shapes, world.rank, self.masters.numel())

    def release(self) -> None:
        pass

    def publish(self) -> None:
        dist.all_gather_into_tensor(self._flat, self.copies)


class Apart(Parts):
    """Those of stage 3: the network's weights are gathered from all ranks' copies as it runs."""

    def __init__(self, zero: Any, shapes: Mapping[str, tuple[int, ...]], world: World) -> None:
        zero._get_norm_groups = lambda: [no_norm()]
        self._zero = zero
        (self.masters,), (self.copies,) = zero.fp32_partitioned_groups_flat, zero.fp16_partitioned_groups_flat
        assert self.masters.data_ptr() != self.copies.data_ptr()
        self.cuts = cut_each(shapes, world.rank, world.size)
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


def state_of(optimizer: torch.optim.Adam, parts: Parts) -> dict[str, Shards]:
    """What a checkpoint holds: views of the flat tensors."""
    held = adam_state(optimizer)[parts.masters]
    flats = {"parameters": parts.masters, **{kind: held[kind] for kind in MOMENTS}}
    state: dict[str, Shards] = {kind: pieces(parts.cuts, flat) for kind, flat in flats.items()}
    return {**state, "steps": {"optimizer": Shard.of_whole(held["step"])}}
