"""How long a rank works in a step before it can have to wait for another."""

from __future__ import annotations

import time

import torch


class Lap:
    """The time from the start of a step to the end of its first forward pass.

    By the host's clock on a CPU, by the accelerator's own on an accelerator, where nothing waits for it. Under
    local, ddp, zero1 and zero2 no collective lies within it: a rank whose laps are long is itself slow. Under fsdp
    and zero3 a forward pass gathers weights, and every rank's laps are as long as the slowest one's.
    """

    def __init__(self, device: torch.device) -> None:
        self._clock = torch.cuda.Event if device.type == "cuda" else HostEvent
        self._start, self._end = self._clock(enable_timing=True), self._clock(enable_timing=True)
        self._start.record()

    def end(self) -> None:
        """The first forward pass has been made, or begun on an accelerator."""
        self._end.record()

    def seconds(self) -> float:
        """Its length, once the device has come past its end."""
        milliseconds: float = self._start.elapsed_time(self._end)
        return milliseconds / 1000


class HostEvent:
    """What torch.cuda.Event is to an accelerator, of the host."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        """Now."""
        self.time = time.perf_counter()

    def elapsed_time(self, end: HostEvent) -> float:
        """Milliseconds from here to `end`."""
        return (end.time - self.time) * 1000
