"""Decoding and encoding alone, which packing is measured against: a job in a module that a crew can import."""

from __future__ import annotations

from dataclasses import dataclass

from data_pipeline.crew import Tell
from data_pipeline.preparation import Preparation


@dataclass(frozen=True)
class Bare:
    """Decodes and encodes a stretch of images, and keeps none."""

    values: list[bytes]
    preparation: Preparation

    def __call__(self, stretch: range, tell: Tell) -> int:
        """How many bytes they have become."""
        return sum(len(self.preparation.image(self.values[row])[1]) for row in stretch)
