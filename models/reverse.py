"""The reverse kernels of Sohl-Dickstein et al. 2015: the network gives the law of x_{t-1} itself, with no x̂_0.

Both end in p(x_0 | x_1) = q(x_1 | x_0), seen from the other side: below the first step's noise there is nothing to
learn, and a density that is free to grow there makes the bound meaningless (appendix B.2, the edge effect).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch

from models.distributions import Bernoulli, Gaussian, Law
from models.parameterizations import Output, ReverseKernel
from models.pixels import PixelRange
from models.processes import BinomialProcess, GaussianProcess, Images, MarkovProcess, Process, Time, per_image


class PinnedKernel(ReverseKernel):
    """p(x_{t-1} | x_t) is learned for t > 1; at t = 1 it is the forward kernel."""

    def law(
        self, process: MarkovProcess, output: Output, x_t: Images, t: Time, s: Time, clip: PixelRange | None = None
    ) -> Law:
        if isinstance(t, int) and isinstance(s, int) and t - s != 1:
            raise ValueError(
                f"parameterization={type(self).__name__} knows single steps only, got one from t = {t} to {s}; "
                "leave sampler.steps at 0"
            )
        if isinstance(t, int) and t == 1:
            return process.transition(x_t, 1, 0)
        return self.learned(process, output, x_t, t)

    @abstractmethod
    def learned(self, process: Any, output: Output, x_t: Images, t: Time) -> Law:
        """p(x_{t-1} | x_t) as the network says it."""


class Mean(Enum):
    """How z_mu moves the mean: paper and official code differ, and neither keeps one unit for all t.

    Data on a curve asks for a z that varies over the width sigma_t of the noise around it: the slope of z grows as
    1/sigma_t² towards t = 0 in `paper` and as 1/sigma_t in `code`, while in `data` one z serves every small t.
    """

    paper = "paper"  # (x_t - z) (1 - Sigma) + z: decay towards z (Eq. 65)
    code = "code"  # sqrt(1 - beta_t) x_t + sqrt(beta_t) z: the forward kernel's mean, displaced
    data = "data"  # sqrt(1 - beta_t) x_t + c_t z, c_t that of x_0 in mu~_t: z = x̂_0 - sqrt(alpha-bar_t) x_t


@dataclass
class GaussianKernel(PinnedKernel):
    """N(mu, Sigma), mean and diagonal covariance both learned for each element (Eq. 64-65).

    With an output of 0 the variance is beta_t, and but for the paper's form the whole kernel is the forward one.
    """

    mean: Mean = Mean.code
    needs: ClassVar[type[Process]] = GaussianProcess

    @property
    def outputs(self) -> int:
        return 2

    def learned(self, process: GaussianProcess, output: Output, x_t: Images, t: Time) -> Gaussian:
        z_mean, z_variance = output.chunk(2, dim=1)
        beta = per_image(1 - process.kept(t, t - 1), x_t)
        variance = torch.sigmoid(z_variance + torch.logit(beta))
        if self.mean is Mean.paper:
            return Gaussian((x_t - z_mean) * (1 - variance) + z_mean, variance.sqrt())
        weight = beta.sqrt()
        if self.mean is Mean.data:
            weight = per_image(process.posterior_coefficients(t, t - 1)[0], x_t)
        return Gaussian((1 - beta).sqrt() * x_t + weight * z_mean, variance.sqrt())


@dataclass
class BinomialKernel(PinnedKernel):
    """Bernoulli with a learned probability for each element (Table 1's f_b, App. D.1.2)."""

    needs: ClassVar[type[Process]] = BinomialProcess


@dataclass
class FlipProbability(BinomialKernel):
    """The output moves the log-odds of the forward kernel, from which an output of 0 makes no difference."""

    def learned(self, process: BinomialProcess, output: Output, x_t: Images, t: Time) -> Bernoulli:
        # In float64: float32 has nothing between 1 - 6e-8 and 1, from where the divergence is infinite.
        forward = process.transition(x_t, t, t - 1).probability.double()
        return Bernoulli(torch.sigmoid(output + torch.logit(forward)))


@dataclass
class DataProbability(BinomialKernel):
    """The output is the log-odds of x_0 = 1; the kernel is the posterior averaged over x_0.

    A network that knows p(x_0 | x_t) of each element gives the best factorised step, by total probability.
    """

    def learned(self, process: BinomialProcess, output: Output, x_t: Images, t: Time) -> Bernoulli:
        of_one = torch.sigmoid(output)
        if_one = process.posterior(x_t, torch.ones_like(x_t), t, t - 1)
        if_zero = process.posterior(x_t, torch.zeros_like(x_t), t, t - 1)
        return Bernoulli(of_one * if_one.probability + (1 - of_one) * if_zero.probability)
