"""Autoregressive models as diffusion: a process that blanks coordinates one by one (Ho et al. 2020, section 4.3).

With T the number of coordinates, q(x_t | x_{t-1}) blanks the t-th of them and p(x_T) is blank. Every law of q is a
point then, L_T is 0, and p(x_{t-1} | x_t) keeps what it sees and says the law of coordinate t given those after
it: the bound is the negative log-likelihood of an autoregressive model, with no gap and no noise in it.

x holds the numbers of values, 0 .. values - 1, as floats, as the binomial process does; the blank is `values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.diffusion import Chain, Condition
from models.distributions import Categorical, Law
from models.noise import Noise, Purpose
from models.parameterizations import Output, ReverseKernel
from models.pixels import PixelRange
from models.processes import Images, MarkovProcess, Process, Time, required
from models.schedules import BetaSchedule, Reciprocal


@dataclass
class MaskingProcess(MarkovProcess):
    """Blanks the coordinates of x in their stored order; at time t a share alpha-bar_t of them is left.

    values: how many there are besides the blank. Under the reciprocal schedule each step blanks as many; where T
    is the number of coordinates that is one. Fewer steps blank several at once, which a chain then says
    independently.
    """

    schedule: BetaSchedule = field(default_factory=Reciprocal)
    values: int = 2

    def check(self, x_0: Images) -> None:
        if not bool(((x_0 >= 0) & (x_0 < self.values) & (x_0 == x_0.round())).all()):
            raise ValueError(
                f"process=masking needs data of whole numbers from 0 to {self.values - 1}, got values from "
                f"{float(x_0.min()):g} to {float(x_0.max()):g}"
            )

    def blanked(self, x: Images, t: Time) -> Bool[Tensor, "B C H W"]:
        """Which coordinates are blank at time t."""
        left = self.alpha_bar(t) * x[0].numel()
        place = torch.arange(x[0].numel(), device=x.device).reshape(x.shape[1:])
        return (x[0].numel() - left.round().reshape(-1, 1, 1, 1) > place).expand(x.shape)

    def point(self, x: Images) -> Categorical:
        """The law of x itself, which is certain."""
        return Categorical(torch.nn.functional.one_hot(x.long(), self.values + 1).to(x.dtype))

    def blank(self, x: Images) -> Images:
        """All coordinates blank, in the shape of x."""
        return torch.full_like(x, self.values)

    def stationary(self, x: Images) -> Categorical:
        return self.point(self.blank(x))

    def prior(self, noise: Noise, shape: Sequence[int]) -> Images:
        return torch.full((len(noise.index), *shape), float(self.values), device=noise.index.device)

    def marginal(self, x_0: Images, t: Time) -> Categorical:
        """The point x_0 with the coordinates that are blank at time t blanked."""
        return self.transition(x_0, t, 0)

    def transition(self, x_s: Images, t: Time, s: Time) -> Categorical:
        """The point x_s with the coordinates that are blank at time t blanked."""
        return self.point(torch.where(self.blanked(x_s, t), self.blank(x_s), x_s))

    def posterior(self, x_t: Images, x_0: Images, t: Time, s: Time) -> Categorical:
        """The point at time s on the only way from x_0 to x_t."""
        return self.marginal(x_0, s)

    def step_entropy(self, x_0: Images, t: Time) -> Images:
        return torch.zeros_like(x_0)


@dataclass
class ValueProbability(ReverseKernel):
    """The output is the log-odds of the values of each coordinate; those that are seen are kept.

    values: as the process has; the channels of the output are those of the first value, then of the second, ….
    """

    values: int = 2
    needs = MaskingProcess

    @property
    def outputs(self) -> int:
        return self.values

    def check(self, process: Process) -> None:
        super().check(process)
        if required(process, MaskingProcess, "parameterization=ValueProbability").values != self.values:
            raise ValueError(f"parameterization.values must be those of {process}, got {self.values}")

    def law(
        self,
        process: MaskingProcess,
        output: Output,
        x_t: Images,
        t: Time,
        s: Time,
        clip: PixelRange | None = None,
    ) -> Categorical:
        """p(x_s | x_t): the coordinates that are blank at t and not at s have the values that the output says."""
        said = torch.softmax(torch.stack(output.chunk(self.values, dim=1), -1), -1)
        said = torch.nn.functional.pad(said, (0, 1))  # the blank is not among them
        shown = process.blanked(x_t, t) & ~process.blanked(x_t, s)
        return Categorical(torch.where(shown[..., None], said, process.point(x_t).probability))


@torch.no_grad()
def bound(chain: Chain[MaskingProcess], x_0: Images, condition: Condition = None) -> Float[Tensor, "B times"]:
    """L_0 … L_T of each image in nats, their sum a bound of -ln p(x_0) (Ho et al. 2020, Eq. 5).

    The decoder's term is a divergence like the others, as q(x_0 | x_1, x_0) is a point of probability 1. Where
    each step shows one coordinate the sum is -ln p(x_0) itself.
    """
    process = chain.process
    process.check(x_0)
    terms = []
    for t in range(1, process.steps + 1):
        x_t = process.marginal(x_0, t).mode
        truth: Law = process.posterior(x_t, x_0, t, t - 1)
        terms.append(truth.kl(chain.reverse(x_t, t, t - 1, condition)))
    terms.append(process.marginal(x_0, process.steps).kl(process.stationary(x_0)))
    return torch.stack([term.flatten(1).sum(1) for term in terms], 1)


@torch.no_grad()
def sample(
    chain: Chain[MaskingProcess], shape: Sequence[int], noise: Noise, condition: Condition = None
) -> Images:
    """x_0, coordinate by coordinate from the last to the first.

    `Ancestral` ends with the mode of p(x_0 | x_1), which there takes noise away; here it would be a coordinate.
    """
    process, x = chain.process, chain.process.prior(noise, shape)
    for t in range(process.steps, 0, -1):
        x = chain.reverse(x, t, t - 1, condition).draw(noise, Purpose.REVERSE, shape, step=t)
    return x
