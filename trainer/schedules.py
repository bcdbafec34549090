"""What changes during a run, as pure functions of the images seen: nothing to save, nothing to disagree about."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Every:
    """A thing that is done each `images` images. 0 means never."""

    images: int

    def due(self, seen: int, batch: int) -> bool:
        """Whether the batch that brought the count to `seen` reached or crossed a multiple of `images`."""
        return self.images > 0 and seen % self.images < batch


def learning_rate(images: int, peak: float, warmup_images: int, decay_images: int = 0) -> float:
    """A linear warm-up from 0 to `peak` (Ho et al. 2020, appendix B: over 5000 steps), then constant.

    decay_images: where the rate reaches 0, along half a cosine from the start that multiplies the warm-up
    (Loshchilov & Hutter 2017, Eq. 5); 0 for no decay.
    """
    warm = min(1.0, images / warmup_images) if warmup_images else 1.0
    left = (1 + math.cos(math.pi * min(1.0, images / decay_images))) / 2 if decay_images else 1.0
    return peak * warm * left


def ema_decay(half_life: float, batch: int) -> float:
    """The decay of one step on `batch` images, of an average that forgets half in `half_life` images.

    Infinite half-life: 1, an average that never moves. The decay d per step of `batch` images that papers state
    is a half-life of batch · ln(1/2) / ln(d) images.
    """
    return 0.5 ** (batch / half_life)


def half_life(decay: float, batch: int) -> float:
    """The half-life, in images, of an average with `decay` for each step of `batch` images."""
    return batch * math.log(0.5) / math.log(decay)
