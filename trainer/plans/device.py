"""The kind of device that a plan is of."""

from __future__ import annotations

from enum import Enum


class Device(Enum):
    """Where the network would run. Autocast normalises in fp32 on an accelerator, on a CPU in bf16."""

    accelerator = "accelerator"
    cpu = "cpu"
