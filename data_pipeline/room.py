"""Room: the memory that the samples of a batch are loaded into."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from data_pipeline.config import DataConfig


@dataclass(frozen=True)
class Room:
    """Where samples are loaded to, one row each; None is what the configuration does not ask for."""

    images: UInt8[np.ndarray, "b c h w"]
    labels: Int64[np.ndarray, " b"] | None
    captions: np.ndarray | None

    def part(self, start: int, stop: int) -> Room:
        """These rows, as views."""
        rows = slice(start, stop)
        return Room(
            self.images[rows],
            None if self.labels is None else self.labels[rows],
            None if self.captions is None else self.captions[rows],
        )


class Rooms:
    """Makes room for one batch after another, of ``count`` samples each.

    Pixels lie with their channels innermost. Their memory comes from numpy, which asks for large pages, and it is
    used again once nobody holds the batch that lay in it: otherwise the system would clear new pages for every
    batch. ``pinned``: an accelerator is to read it by itself, while the host goes on.
    """

    def __init__(self, config: DataConfig, count: int, pinned: bool = False) -> None:
        self._config, self._count, self._pinned = config, count, pinned
        self._free: list[np.ndarray] = []

    def take(self) -> Room:
        """Room for the next batch; what is in it is left over from another one."""
        config, count = self._config, self._count
        shape = (count, config.resolution, config.resolution, config.channels)
        pixels = self._free.pop() if self._free else self._new(shape)
        # A tensor made of this view keeps it alive, and so do all views of the tensor.
        images = pixels.transpose(0, 3, 1, 2)
        weakref.finalize(images, self._free.append, pixels).atexit = False
        return Room(
            images=images,
            labels=np.empty(count, np.int64) if config.labels else None,
            captions=np.empty(count, object) if config.captions else None,
        )

    def _new(self, shape: tuple[int, ...]) -> np.ndarray:
        if not self._pinned:
            return np.empty(shape, np.uint8)
        pixels: np.ndarray = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return pixels
