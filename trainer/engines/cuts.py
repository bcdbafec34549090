"""Where the pieces of the parameters lie in the one flat tensor that a rank of ZeRO owns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor

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
