"""Optimizers, chosen by value and built over the parameters that a rank owns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

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


def adam_state(optimizer: torch.optim.Adam) -> dict[Tensor, dict[str, Tensor]]:
    """The moments and the number of steps of each parameter, made now if there was no step yet: Adam's start."""
    for parameter in (each for group in optimizer.param_groups for each in group["params"]):
        held = optimizer.state[parameter]
        if not held:
            held["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            held["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            held["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
    state: dict[Tensor, dict[str, Tensor]] = optimizer.state
    return state


def same_steps(optimizer: torch.optim.Adam, steps: Tensor) -> None:
    """Every parameter has made so many steps."""
    for held in adam_state(optimizer).values():
        held["step"].copy_(steps)


def norm_of(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all of them together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))


def norm_over(group: dist.ProcessGroup, gradients: Sequence[Tensor], device: torch.device) -> Tensor:
    """The norm of the whole gradient, of which each rank of the group has a part, on the ranks' `device`.

    Squares are summed in fp64: that of a finite norm may not be finite in fp32.
    """
    square = norm_of(gradients).to(device).double().square()
    dist.all_reduce(square, group=group)
    return square.sqrt().float()


def guarded_step(optimizer: torch.optim.Adam, learning_rate: float, norm: Tensor, clip_norm: float) -> None:
    """One step of a fused optimizer, then no gradients. Nothing moves where the gradient's norm is not finite."""
    guard(optimizer, learning_rate, norm, clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def guard(optimizer: torch.optim.Adam, learning_rate: float, norm: Tensor, clip_norm: float) -> None:
    """Prepares a fused optimizer's next step, to be clipped, or to move nothing where the norm is not finite.

    norm: of the whole gradient, over all ranks. The fused kernel divides by grad_scale as it reads and does
    nothing where found_inf is 1: neither clipping nor skipping costs a pass over the gradients, and no host waits.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    norm = norm.float()
    optimizer.found_inf = (~torch.isfinite(norm)).float()
    if clip_norm:
        optimizer.grad_scale = (norm / clip_norm).clamp(min=1)
