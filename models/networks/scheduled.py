"""A network together with the noise schedule that is learned with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from models.networks.initialization import StartsItself
from models.schedules import Learned


class Scheduled(StartsItself, nn.Module):
    """The network's output, and beta_2 .. beta_T as parameters (Sohl-Dickstein et al. 2015, section 2.4.1).

    A parameter moves the log-odds of its beta, from where the schedule starts: beta stays between 0 and 1.
    """

    def __init__(self, network: nn.Module, schedule: Learned) -> None:
        super().__init__()
        self.network, self.schedule = network, schedule
        self.moved = nn.Parameter(torch.empty(schedule.steps - 1))

    def start(self, kind: str, uniform: Tensor) -> Tensor:
        return torch.zeros_like(uniform)

    def forward(
        self, x: Float[Tensor, "B C H W"], t: Int64[Tensor, " B"], condition: Tensor | None = None
    ) -> Float[Tensor, "B O H W"]:
        out: Tensor = self.network(x, t, condition)
        return out

    def stages(self) -> Iterator[nn.Module]:
        """The network's."""
        return cast(Callable[[], Iterator[nn.Module]], self.network.stages)()

    def beta(self) -> Float64[Tensor, " T"]:
        """beta_1 .. beta_T as they are now."""
        start = self.schedule.beta().to(self.moved.device)
        return torch.cat((start[:1], torch.sigmoid(torch.logit(start[1:]) + self.moved.double())))
