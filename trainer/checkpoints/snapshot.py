"""A copy of what a rank saves, in the host's memory: training goes on while it is written."""

from __future__ import annotations

import torch

from trainer.ema import named_like, runs
from trainer.shard import Shards


class Snapshot:
    """Room for a copy of these live shards, kept from one save to the next; pinned where they lie on a GPU."""

    def __init__(self, live: Shards) -> None:
        self._live = runs(shard.tensor for shard in live.values())
        on_gpu = any(run.device.type == "cuda" for run in self._live)
        room = torch.empty(sum(run.numel() for run in self._live), pin_memory=on_gpu)
        self._room = list(room.split([run.numel() for run in self._live]))
        self.shards: Shards = named_like(live, self._room) if live else {}

    @torch.no_grad()
    def take(self) -> None:
        """Copies, and waits for nothing but the copy."""
        if not self._live:
            return
        torch._foreach_copy_(self._room, self._live, non_blocking=True)
        if self._live[0].device.type == "cuda":
            copied = torch.cuda.Event()
            copied.record()
            copied.synchronize()
