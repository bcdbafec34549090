"""What the network's output means: each parameterization turns it into x̂_0 and says what it is trained towards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from models.distributions import Gaussian, Law
from models.pixels import PixelRange
from models.processes import (
    GaussianProcess,
    Images,
    MarkovProcess,
    PerturbationProcess,
    Process,
    Time,
    per_image,
    required,
)

Output = Float[Tensor, "B O H W"]


class Variance(Enum):
    """The variance of p(x_{t-1} | x_t) (Ho et al. 2020, section 3.2)."""

    small = "small"  # beta~_t, that of the posterior: right where the data is one point
    large = "large"  # beta_t: right where the data is N(0, I)
    learned = "learned"  # between the two, for each pixel, as the network's second half says


class FirstVariance(Enum):
    """The variance of p(x_0 | x_1), where `large` is ambiguous. No sampler draws from it; likelihoods need it."""

    beta_tilde_2 = "beta_tilde_2"  # that of the step before: the official code, and so the paper's numbers
    beta_1 = "beta_1"  # the paper's text


@dataclass(frozen=True)
class Prediction:
    """What the network says of x_t, where it goes through x̂_0.

    output: what is trained towards the parameterization's target. x_0: the x̂_0 that it implies.
    spread: the second half of the channels, which the variance is made of where that is learned.
    """

    output: Images
    x_0: Images
    spread: Images | None


@dataclass
class ReverseKernel(ABC):
    """How the network's output becomes p(x_s | x_t), on the processes it needs: all that a `Chain` asks for."""

    needs: ClassVar[type[Process]] = MarkovProcess

    @property
    def outputs(self) -> int:
        """How many channels the network must give for each channel of x; they follow one another."""
        return 1

    def check(self, process: Process) -> None:
        """Raises ValueError for a process that the kernel cannot reverse."""
        required(process, self.needs, f"parameterization={type(self).__name__}")

    @abstractmethod
    def law(
        self, process: Any, output: Output, x_t: Images, t: Time, s: Time, clip: PixelRange | None = None
    ) -> Law:
        """p(x_s | x_t); `clip` is the range that x̂_0 is held within, where the kernel goes through it."""


@dataclass
class Parameterization(ReverseKernel):
    """A kernel through x̂_0: the meaning of the network's output, and the variance of the reverse law."""

    variance: Variance = Variance.large
    first_variance: FirstVariance = FirstVariance.beta_tilde_2
    needs: ClassVar[type[Process]] = GaussianProcess
    divides_by_signal = False  # recovers x_0 through 1 / signal_t, which must then not be 0

    @abstractmethod
    def target(self, process: Any, x_0: Images, x_t: Images, epsilon: Images, t: Time) -> Images:
        """The output that a network which knew x_0 would give."""

    @abstractmethod
    def x_0(self, process: Any, output: Images, x_t: Images, t: Time) -> Images:
        """x̂_0, as the output implies it."""

    @property
    def outputs(self) -> int:
        return 2 if self.variance is Variance.learned else 1

    def check(self, process: Process) -> None:
        super().check(process)
        if self.divides_by_signal:
            by = f"parameterization={type(self).__name__}"
            perturbed = required(process, PerturbationProcess, by)
            if float(perturbed.signal(perturbed.steps)) <= 0:
                raise ValueError(
                    f"{by} recovers x_0 by dividing by sqrt(alpha-bar_t), which is 0 at t = {process.steps} under "
                    f"{process}; choose another parameterization or schedule"
                )

    def predict(
        self, process: Any, output: Output, x_t: Images, t: Time, clip: PixelRange | None = None
    ) -> Prediction:
        """All that the network's output says of x_t; `clip` is the range that x̂_0 is held within."""
        said, *rest = output.chunk(self.outputs, dim=1)
        x_0 = self.x_0(process, said, x_t, t)
        return Prediction(said, x_0 if clip is None else x_0.clamp(clip.low, clip.high), rest[0] if rest else None)

    def law(
        self, process: Process, output: Output, x_t: Images, t: Time, s: Time, clip: PixelRange | None = None
    ) -> Gaussian:
        gaussian = required(process, GaussianProcess, "p(x_s | x_t)")
        said = self.predict(gaussian, output, x_t, t, clip)
        return self.reverse(gaussian, x_t, said.x_0, t, s, said.spread)

    def score(self, process: Any, output: Images, x_t: Images, t: Time) -> Images:
        """∇ log q(x_t) = (signal_t x̂_0 - x_t) / sigma_t², by Tweedie's formula (Efron 2011, Eq. 1.4)."""
        law = required(process, PerturbationProcess, "a score").marginal(self.x_0(process, output, x_t, t), t)
        return (law.mean - x_t) / law.std**2

    def reverse(
        self, process: GaussianProcess, x_t: Images, x_0: Images, t: Time, s: Time, spread: Images | None = None
    ) -> Gaussian:
        """p(x_s | x_t): the posterior's mean with x̂_0 in place of x_0 (Ho et al. 2020, Eq. 11).

        spread: what the network says of the variance, where that is learned: -1 is beta~_t, 1 is beta_t.
        """
        mean = process.posterior(x_t, x_0, t, s).mean
        small, large = self.stds(process, t, s)
        if self.variance is not Variance.learned:
            return Gaussian(mean, per_image(small if self.variance is Variance.small else large, x_t))
        assert spread is not None, "a learned variance needs the network's second half"
        # log sigma² = v log beta + (1 - v) log beta~ (Nichol & Dhariwal 2021, Eq. 15), v = (spread + 1) / 2
        v = (spread + 1) / 2
        return Gaussian(mean, torch.exp(v * per_image(large.log(), x_t) + (1 - v) * per_image(small.log(), x_t)))

    def stds(
        self, process: GaussianProcess, t: Time, s: Time
    ) -> tuple[Float64[Tensor, "*B"], Float64[Tensor, "*B"]]:
        """sqrt(beta~_t) and sqrt(beta_t). At s = 0, where beta~ is 0, it is beta~_2, as in the official code."""
        small = process.posterior_coefficients(t, s)[2]
        large = (1 - process.alpha_bar(t) / process.alpha_bar(s)).sqrt()
        last = torch.as_tensor(s) == 0
        first = process.posterior_coefficients(2, 1)[2] if process.steps > 1 else large
        if self.variance is Variance.large and self.first_variance is FirstVariance.beta_tilde_2:
            large = torch.where(last, first, large)
        return torch.where(last, first, small), large


@dataclass
class Epsilon(Parameterization):
    """The output is the noise eps (Ho et al. 2020, Eq. 12)."""

    divides_by_signal = True

    def target(self, process: GaussianProcess, x_0: Images, x_t: Images, epsilon: Images, t: Time) -> Images:
        return epsilon

    def x_0(self, process: GaussianProcess, output: Images, x_t: Images, t: Time) -> Images:
        a_t = process.alpha_bar(t)
        return (x_t - per_image((1 - a_t).sqrt(), x_t) * output) / per_image(a_t.sqrt(), x_t)


@dataclass
class Data(Parameterization):
    """The output is x_0 itself."""

    def target(self, process: GaussianProcess, x_0: Images, x_t: Images, epsilon: Images, t: Time) -> Images:
        return x_0

    def x_0(self, process: GaussianProcess, output: Images, x_t: Images, t: Time) -> Images:
        return output


@dataclass
class PosteriorMean(Parameterization):
    """The output is mu~_t(x_t, x_0), the mean of the posterior (Ho et al. 2020, Eq. 8)."""

    def target(self, process: GaussianProcess, x_0: Images, x_t: Images, epsilon: Images, t: Time) -> Images:
        return process.posterior(x_t, x_0, t, t - 1).mean

    def x_0(self, process: GaussianProcess, output: Images, x_t: Images, t: Time) -> Images:
        of_data, of_image, _ = process.posterior_coefficients(t, t - 1)
        return (output - per_image(of_image, x_t) * x_t) / per_image(of_data, x_t)


@dataclass
class Velocity(Parameterization):
    """The output is v = sqrt(alpha-bar_t) eps - sqrt(1 - alpha-bar_t) x_0 (Salimans & Ho 2022, appendix D)."""

    def target(self, process: GaussianProcess, x_0: Images, x_t: Images, epsilon: Images, t: Time) -> Images:
        a_t = process.alpha_bar(t)
        return per_image(a_t.sqrt(), x_t) * epsilon - per_image((1 - a_t).sqrt(), x_t) * x_0

    def x_0(self, process: GaussianProcess, output: Images, x_t: Images, t: Time) -> Images:
        a_t = process.alpha_bar(t)
        return per_image(a_t.sqrt(), x_t) * x_t - per_image((1 - a_t).sqrt(), x_t) * output


@dataclass
class Score(Parameterization):
    """The output is the score, ∇ log q(x_t) (Song & Ermon 2019, Eq. 5)."""

    needs: ClassVar[type[Process]] = PerturbationProcess
    divides_by_signal = True

    def target(self, process: PerturbationProcess, x_0: Images, x_t: Images, epsilon: Images, t: Time) -> Images:
        return -epsilon / per_image(process.sigma(t), x_t)

    def x_0(self, process: PerturbationProcess, output: Images, x_t: Images, t: Time) -> Images:
        score = self.score(process, output, x_t, t)
        return (x_t + per_image(process.sigma(t) ** 2, x_t) * score) / per_image(process.signal(t), x_t)

    def score(self, process: PerturbationProcess, output: Images, x_t: Images, t: Time) -> Images:
        return output


@dataclass
class ScaledScore(Score):
    """The output is sigma_t ∇ log q(x_t), of the same size at every level (Song & Ermon 2020, Technique 3)."""

    def target(self, process: PerturbationProcess, x_0: Images, x_t: Images, epsilon: Images, t: Time) -> Images:
        return -epsilon

    def score(self, process: PerturbationProcess, output: Images, x_t: Images, t: Time) -> Images:
        return output / per_image(process.sigma(t), x_t)
