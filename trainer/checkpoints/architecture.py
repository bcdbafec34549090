"""Whether a checkpoint is of the network that is configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Shaped(Protocol):
    """Anything with a shape: a tensor, a shard, what was saved of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As torch says it."""


def check_names(what: str, ours: Mapping[str, Shaped], theirs: Mapping[str, Shaped]) -> None:
    """Raises ValueError for the first name or shape in which a checkpoint differs from the configured network."""
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name not in theirs or name not in ours:
            where = "the checkpoint" if name in theirs else "the configured network"
            raise ValueError(f"the checkpoint is of another architecture: {what} {name!r} is only in {where}")
        if tuple(ours[name].shape) != tuple(theirs[name].shape):
            raise ValueError(
                f"the checkpoint is of another architecture: {what} {name!r} has the shape "
                f"{tuple(theirs[name].shape)} there and {tuple(ours[name].shape)} in the configured network"
            )
