"""What a network is told of the job when it is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn


@dataclass
class NetworkConfig(ABC):
    """The shape of a network: a plain value, from which the module is built."""

    @property
    def known_classes(self) -> int:
        """How many classes it can be told of; 0 where it takes no condition."""
        return 0

    @abstractmethod
    def build(self, image_channels: int, resolution: int, outputs: int = 1, steps: int = 0) -> nn.Module:
        """The network for x [image_channels, resolution, resolution], on torch's current device.

        outputs: how many numbers it gives for each element of x. steps: T, for networks with a part for each t.
        """
