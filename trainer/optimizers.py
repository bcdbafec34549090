"""Optimizers, chosen by value and built over the parameters that a rank owns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from trainer.schedules import learning_rate


@dataclass
class OptimizerConfig:
    """Adam (Kingma & Ba 2015).

    decoupled: weight decay shrinks the weights (AdamW, Loshchilov & Hutter 2019), or else adds to the gradient.
    learning_rate: after the warm-up. warmup_images: images over which it rises linearly from 0.
    decay_images: images after which it is back at 0, along a cosine; 0 does not decay.
    """

    learning_rate: float = 2e-4
    warmup_images: int = 640_000
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = True
    decay_images: int = 0

    def __post_init__(self) -> None:
        self.betas = list(self.betas)
        if self.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate must be positive, got {self.learning_rate}")
        if self.warmup_images < 0:
            raise ValueError(f"optimizer.warmup_images must be at least 0, got {self.warmup_images}")
        if self.decay_images < 0:
            raise ValueError(
                f"optimizer.decay_images must be at least 0 (0 does not decay), got {self.decay_images}"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas must be two numbers in [0, 1), got {self.betas}")

    def rate(self, images: int) -> float:
        """The learning rate once so many images have been seen."""
        return learning_rate(images, self.learning_rate, self.warmup_images, self.decay_images)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Adam:
        """The optimizer, fused: one pass over memory, which also divides the gradients by `grad_scale`."""
        first, second = self.betas
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        return kind(
            parameters,
            lr=self.learning_rate,
            betas=(first, second),
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            fused=True,
        )
