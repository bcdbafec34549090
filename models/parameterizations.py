"""What the network's output means: each parameterization turns it into x̂_0 and says what it is trained towards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

from jaxtyping import Float
from torch import Tensor

from models.distributions import Gaussian, Law
from models.processes import GaussianProcess, Images, MarkovProcess, Time, per_image


class Variance(Enum):
    """The variance of p(x_{t-1} | x_t), where it is not learned (Ho et al. 2020, section 3.2)."""

    small = "small"  # beta~_t, that of the posterior: right where the data is one point
    large = "large"  # beta_t: right where the data is N(0, I)


Output = Float[Tensor, "B O H W"]


@dataclass
class ReverseKernel(ABC):
    """How the network's output becomes p(x_s | x_t): all that the bound and ancestral sampling need.

    outputs: how many numbers the network gives for each element of x; their channels follow one another.
    """

    outputs = 1

    @abstractmethod
    def check(self, process: MarkovProcess) -> None:
        """Raises ValueError for a process that the kernel cannot reverse."""

    @abstractmethod
    def law(self, process: MarkovProcess, output: Output, x_t: Images, t: Time, s: Time, clip: bool) -> Law:
        """p(x_s | x_t); `clip` holds x̂_0, where the kernel goes through it, within [-1, 1]."""


@dataclass
class Parameterization(ReverseKernel):
    """A kernel through x̂_0: the meaning of the network's output, and the variance of the reverse law."""

    variance: Variance = Variance.large
    divides_by_signal = False  # recovers x_0 through 1 / sqrt(alpha-bar_t), which must then not be 0

    @abstractmethod
    def target(self, process: GaussianProcess, x_0: Images, x_t: Images, epsilon: Images, t: Time) -> Images:
        """The output that a network which knew x_0 would give."""

    @abstractmethod
    def x_0(self, process: GaussianProcess, output: Images, x_t: Images, t: Time) -> Images:
        """x̂_0, as the output implies it."""

    def check(self, process: MarkovProcess) -> None:
        name = type(self).__name__
        if not isinstance(process, GaussianProcess):
            raise ValueError(f"parameterization={name} reverses process=gaussian, got {type(process).__name__}")
        if self.divides_by_signal and float(process.alpha_bar(process.steps)) <= 0:
            raise ValueError(
                f"parameterization={name} recovers x_0 by dividing by sqrt(alpha-bar_t), which is 0 at "
                f"t = {process.steps} under the schedule {type(process.schedule).__name__}; choose another "
                "parameterization or schedule"
            )

    def law(self, process: MarkovProcess, output: Output, x_t: Images, t: Time, s: Time, clip: bool) -> Gaussian:
        assert isinstance(process, GaussianProcess)
        x_0 = self.x_0(process, output, x_t, t)
        return self.reverse(process, x_t, x_0.clamp(-1, 1) if clip else x_0, t, s)

    def reverse(self, process: GaussianProcess, x_t: Images, x_0: Images, t: Time, s: Time) -> Gaussian:
        """p(x_s | x_t): the posterior's mean with x̂_0 in place of x_0 (Ho et al. 2020, Eq. 11)."""
        posterior = process.posterior(x_t, x_0, t, s)
        if self.variance is Variance.small:
            return posterior
        return Gaussian(posterior.mean, process.transition(x_t, t, s).std)


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
