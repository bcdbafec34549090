"""Classes as the condition of a network: which image is of which class, and the class that stands for none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from models.noise import Noise, Purpose

NO_CLASS = -1  # in the place of a class, 0 .. classes - 1: the network is to draw from all of them

Classes = Int64[Tensor, " B"]
# The class that each image is drawn as, by its number alone, whatever the batch that it is drawn in.
Assignment = Callable[[Int64[Tensor, " B"]], Classes]

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio, as a signed word


def hidden(classes: Classes, noise: Noise, share: float) -> Classes:
    """The classes, a share of them taken away at random: p_uncond of Ho & Salimans 2022, Algorithm 1."""
    keeps = noise.uniform(Purpose.LABEL_DROP, ()) > share
    return torch.where(keeps, classes, NO_CLASS)


@dataclass(frozen=True)
class Cycle:
    """Image i is of class classes[i modulo their number]."""

    classes: tuple[int, ...]

    def __call__(self, index: Int64[Tensor, " B"]) -> Classes:
        return torch.tensor(self.classes, device=index.device)[index % len(self.classes)]


@dataclass(frozen=True)
class Shares:
    """Any number of images in a row holds the classes in the proportions of `counts`, to a few images.

    counts: how many images of each class there are where the proportions come from.

    Multiples of the golden ratio, modulo 1, fill the unit interval as evenly as any sequence does whose terms are
    known by their number (Weyl 1916); each class has its part of the interval.
    """

    counts: tuple[int, ...]

    @classmethod
    def of(cls, labels: Int64[Tensor, " N"]) -> Shares:
        """The proportions of these labels."""
        return cls(tuple(torch.bincount(labels).tolist()))

    def __call__(self, index: Int64[Tensor, " B"]) -> Classes:
        ends = torch.tensor(self.counts, device=index.device).cumsum(0)
        word = index * GOLDEN >> 33 & 0x7FFFFFFF
        return torch.bucketize(word * ends[-1] >> 31, ends, right=True)
