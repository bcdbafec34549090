"""Windows: how the samples of one epoch are cut into lanes and windows, before any of them is shuffled."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

Numbers = Int64[np.ndarray, " n"]


class Windows:
    """The samples of an epoch, laid out shard after shard, cut into lanes and these into windows.

    A *place* counts the samples in the order of time, a *spot* counts them as they are laid out. Places belong to
    the lanes in turn, and the spots of a lane are neighbours: so the lanes are read at one pace, and each is a
    stretch of shards. In a lane every ``window`` shards make a window, and a shard that a lane's border cuts
    belongs with its part to both. With one lane, places are spots.

    Args:
        begins: the first sample of each shard, in the order in which the epoch lays the shards out.
        sizes: how many samples each of them holds, at least one.
        window: shards in a window; 0 for all that a lane holds.
        lanes: no more than there are samples.
        turn: the lane of the first place.
    """

    def __init__(self, begins: Numbers, sizes: Numbers, window: int, lanes: int, turn: int) -> None:
        assert sizes.min() > 0, sizes
        self._begins = begins
        self._shard_starts = np.concatenate(([0], np.cumsum(sizes)))
        size = int(self._shard_starts[-1])
        assert lanes <= size, (lanes, size)
        self._lanes, self._turn = lanes, turn
        self._first_places = (np.arange(lanes) - turn) % lanes
        self._lane_starts = np.concatenate(([0], np.cumsum(-(-(size - self._first_places) // lanes))))
        self.starts = self._window_starts(window or len(sizes))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def spots(self, places: Numbers) -> Numbers:
        """Where the samples at these places are laid out."""
        spots: np.ndarray = self._lane_starts[(places + self._turn) % self._lanes] + places // self._lanes
        return spots

    def numbers(self, spots: Numbers) -> Numbers:
        """The number of the window that each spot lies in."""
        return np.searchsorted(self.starts, spots, side="right") - 1

    def after(self, spots: Numbers) -> Numbers:
        """The place at which each spot's lane has read the spot's window; past the end, in the next epoch."""
        lanes = np.searchsorted(self._lane_starts, spots, side="right") - 1
        read = self.starts[self.numbers(spots) + 1] - self._lane_starts[lanes]
        places: np.ndarray = self._first_places[lanes] + read * self._lanes
        return places

    def spans(self, number: int) -> tuple[Numbers, Numbers]:
        """The samples of a window as spans [begin, end), in ascending order; neighbours are joined."""
        start, end = self.starts[number : number + 2].tolist()
        first, last = np.searchsorted(self._shard_starts, (start, end - 1), side="right").tolist()
        starts, ends = self._shard_starts[first - 1 : last], self._shard_starts[first : last + 1]
        moved = self._begins[first - 1 : last] - starts
        begins, ends = np.sort(np.maximum(starts, start) + moved), np.sort(np.minimum(ends, end) + moved)
        apart = begins[1:] != ends[:-1]
        return begins[np.append(True, apart)], ends[np.append(apart, True)]

    def _window_starts(self, window: int) -> Numbers:
        begins, ends = self._lane_starts[:-1], self._lane_starts[1:]
        first = np.searchsorted(self._shard_starts, begins, side="right") - 1
        last = np.searchsorted(self._shard_starts, ends, side="left")
        inner = [self._shard_starts[i + window : j : window] for i, j in zip(first, last, strict=True)]
        return np.sort(np.concatenate((begins, *inner, ends[-1:])))
