"""The likelihood of the probability-flow equation (Song et al. 2021, SDE): exact but for the steps of its solver.

The equation is solved in the angle phi, cos phi = sqrt(alpha-bar_t), in which it is dx/dphi = v with
v = cos(phi) ε̂ - sin(phi) x̂_0 (Salimans & Ho 2022, appendix D): bounded at both ends, whatever the schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from models.diffusion import Condition, Diffusion
from models.likelihood import standard_normal
from models.noise import Noise, Purpose
from models.processes import Images
from models.solvers import down_to_the_first


class Trace(Enum):
    """How the divergence of v is found."""

    exact = "exact"  # a gradient for each dimension
    hutchinson = "hutchinson"  # one gradient along a random direction: unbiased (Grathwohl et al. 2019, Eq. 7)


@dataclass(frozen=True)
class ProbabilityFlow:
    """ln p(x_0) of each image, by Heun's method from the data to the prior.

    steps: how many, 0 for all T. The network must let gradients through to its input.
    """

    trace: Trace = Trace.exact
    steps: int = 0

    def __call__(
        self, diffusion: Diffusion, x_0: Images, noise: Noise, condition: Condition = None
    ) -> Float[Tensor, " B"]:
        """ln p(x_0) in nats: ln N(x_T; 0, I) plus the divergence on the way (Song et al. 2021, Eq. 39)."""
        process, x = diffusion.process, x_0
        probe = self.probe(x_0, noise)
        # At t = 0 nothing is known of the noise, so ε̂ = 0 and v = 0 for data that has a smooth density.
        v, divergence = torch.zeros_like(x_0), x_0.new_zeros(len(x_0))
        gathered, angle = divergence, 0.0
        for _, t in pairwise(reversed(down_to_the_first(process.steps, self.steps))):
            a_t = process.alpha_bar(t)
            angle_t = float(torch.atan2((1 - a_t).sqrt(), a_t.sqrt()))
            stride = angle_t - angle
            v_ahead, divergence_ahead = self.velocity(diffusion, x + stride * v, t, probe, condition)
            x = x + stride / 2 * (v + v_ahead)
            gathered = gathered + stride / 2 * (divergence + divergence_ahead)
            v, divergence = self.velocity(diffusion, x, t, probe, condition)
            angle = angle_t
        return standard_normal(x).log_prob(x).flatten(1).sum(1) + gathered

    def probe(self, x_0: Images, noise: Noise) -> Float[Tensor, "N B C H W"]:
        """The directions whose products with the Jacobian are summed: every axis, or one of random signs."""
        if self.trace is Trace.exact:
            axes = torch.eye(x_0[0].numel(), dtype=x_0.dtype, device=x_0.device)
            return axes.reshape(-1, 1, *x_0.shape[1:]).expand(-1, len(x_0), -1, -1, -1)
        return noise.normal(Purpose.TRACE, x_0.shape[1:]).to(x_0.dtype).sign()[None]

    def velocity(
        self,
        diffusion: Diffusion,
        x: Images,
        t: int,
        probe: Float[Tensor, "N B C H W"],
        condition: Condition,
    ) -> tuple[Images, Float[Tensor, " B"]]:
        """v at x_t = x, and its divergence."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x_0, a_t = diffusion.x_0(x, t, condition), diffusion.process.alpha_bar(t)
            v = a_t.sqrt() * diffusion.process.epsilon(x, x_0, t) - (1 - a_t).sqrt() * x_0
            products = [
                (direction, torch.autograd.grad(v, x, direction, retain_graph=True)[0]) for direction in probe
            ]
        divergence = torch.stack([(one * other).flatten(1).sum(1) for one, other in products]).sum(0)
        return v.detach(), divergence
