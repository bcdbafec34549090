"""Feed: batches onto the device, each while the step before it is still at work there."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import torch
from torch import Tensor

from data_pipeline.batches import Batch


class Feed:
    """A function from a rank's batch in the host's memory to the same batch on its device.

    Onto an accelerator bytes are copied by a stream of their own, out of pinned memory: the host runs ahead of the
    device, so a copy that is asked for now runs beside the step under way, and the next step waits for it on
    the device alone. No batch is taken before it is due, so an error in one is still raised at its own step.

    Attributes:
        pinned: whether batches should lie in pinned memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pinned = device.type == "cuda"
        self._side = torch.cuda.Stream(device) if self.pinned else None
        self._copied_from: deque[tuple[torch.cuda.Event, Batch]] = deque()

    def __call__(self, batch: Batch) -> Batch:
        """The batch, fit to be worked on by the device's present stream."""
        if self._side is None:
            return self._moved(batch)
        with torch.cuda.stream(self._side):
            moved = self._moved(batch)
        self._hold(batch, self._side.record_event())
        present = torch.cuda.current_stream(self.device)
        present.wait_stream(self._side)
        for tensor in (moved.x, moved.condition, moved.index):
            if tensor is not None:
                tensor.record_stream(present)  # the side stream gives its memory away, after the step
        return moved

    def _hold(self, batch: Batch, copied: torch.cuda.Event) -> None:
        # Once nobody holds a batch another one is loaded into its memory, which must have been copied by then.
        while self._copied_from and self._copied_from[0][0].query():
            self._copied_from.popleft()
        self._copied_from.append((copied, batch))

    def _moved(self, batch: Batch) -> Batch:
        condition = None if batch.condition is None else self._copy(batch.condition)
        return replace(batch, x=self._copy(batch.x), condition=condition, index=self._copy(batch.index))

    def _copy(self, tensor: Tensor) -> Tensor:
        # From memory that is not pinned the host waits, and all is as right.
        return tensor.to(self.device, non_blocking=True)
