"""The part of a tensor that one rank owns: what averages follow, checkpoints hold and engines lend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """Elements start .. start + n - 1 of a tensor of `shape`, counted row by row.

    Every engine cuts what it holds into such pieces: whole tensors (local, ddp), rows (fsdp) or any stretch of
    elements (zero). So one checkpoint serves them all.
    """

    tensor: Shaped[Tensor, " n"]
    start: int
    shape: tuple[int, ...]

    @classmethod
    def of_whole(cls, tensor: Tensor) -> Shard:
        """All of a contiguous tensor, sharing its memory."""
        return cls(tensor.detach().view(-1), 0, tuple(tensor.shape))

    def like(self, tensor: Shaped[Tensor, " n"]) -> Shard:
        """The same place, of another tensor."""
        assert tensor.shape == self.tensor.shape, (tensor.shape, self.tensor.shape)
        return replace(self, tensor=tensor)

    @property
    def stop(self) -> int:
        """The element after the last."""
        return self.start + self.tensor.numel()

    @property
    def whole(self) -> Tensor:
        """The tensor in its own shape, where all of it is here."""
        assert self.start == 0
        return self.tensor.view(self.shape)


# canonical name of a parameter → what this rank owns of it, or of what belongs to it
Shards: TypeAlias = Mapping[str, Shard]


def copy_shards(source: Shards, target: Shards) -> None:
    """Copies every element of `source` into `target`, in place. Both are cut alike."""
    assert source.keys() == target.keys()
    assert all(
        (source[name].start, source[name].shape) == (target[name].start, target[name].shape) for name in source
    )
    pairs = [(target[name].tensor, shard.tensor) for name, shard in source.items() if shard.tensor.numel()]
    if pairs:
        into, out_of = zip(*pairs, strict=True)
        with torch.no_grad():
            torch._foreach_copy_(list(into), list(out_of))
