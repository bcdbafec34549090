"""What every network's config can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn


@dataclass
class NetworkConfig(ABC):
    """The shape of a network, as a plain value."""

    @abstractmethod
    def build(self, image_channels: int, resolution: int, steps: int = 0) -> nn.Module:
        """The network for images [image_channels, resolution, resolution], on torch's current device.

        steps: T, for a network with weights of its own for each t; others do not ask for it.
        """
