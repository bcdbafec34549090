"""Forward processes: how data becomes noise, and the laws that follow from it in closed form.

Time t runs over 1..T, and t = 0 is the data. A time is either an int, the same for the whole batch (sampling),
or an int64 tensor [B], one for each image (training).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from models.distributions import Bernoulli, Gaussian, Law
from models.noise import Noise, Purpose
from models.schedules import BetaSchedule, Linear, Live, alpha_bar

Time = int | Int64[Tensor, " B"]
Images = Float[Tensor, "B C H W"]
Kind = TypeVar("Kind", bound="Process")


@dataclass
class Process(ABC):
    """A family of laws q(x_t | x_0) that ends in a law without any trace of x_0."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """T."""

    @abstractmethod
    def prior(self, noise: Noise, shape: Sequence[int]) -> Images:
        """x_T, drawn from the law that the process ends in; `shape` is of one image."""

    @abstractmethod
    def marginal(self, x_0: Images, t: Time) -> Law:
        """q(x_t | x_0)."""

    def times(self, noise: Noise) -> Int64[Tensor, " B"]:
        """One t for each image, uniform on 1..T."""
        return 1 + noise.integers(Purpose.TIME, self.steps)


class PerturbationProcess(Process):
    """x_t = signal_t x_0 + sigma_t eps: what a score can be learned on (Song et al. 2021, Eq. 29)."""

    @abstractmethod
    def signal(self, t: Time) -> Float64[Tensor, "*B"]:
        """What is left of x_0."""

    @abstractmethod
    def sigma(self, t: Time) -> Float64[Tensor, "*B"]:
        """The standard deviation of the noise."""

    def marginal(self, x_0: Images, t: Time) -> Gaussian:
        """N(signal_t x_0, sigma_t² I)."""
        return Gaussian(per_image(self.signal(t), x_0) * x_0, per_image(self.sigma(t), x_0))


@dataclass
class MarkovProcess(Process):
    """A process of steps x_{t-1} → x_t, of which each keeps the share 1 - beta_t, and whose posterior is known.

    Every law is written for any s < t, through alpha-bar alone: s = t - 1 is the papers' case, and a larger step
    is exactly the same process seen at fewer times.
    """

    schedule: BetaSchedule = field(default_factory=Linear)

    @property
    def steps(self) -> int:
        return self.schedule.steps

    @cached_property
    def _tables(self) -> dict[torch.device, Float64[Tensor, " times"]]:
        return {torch.device("cpu"): alpha_bar(self.schedule.beta())}

    def alpha_bar(self, t: Time) -> Float64[Tensor, "*B"]:
        """alpha-bar_t in float64: a scalar for an int, [B] for a tensor, which is looked up where it lies."""
        if isinstance(self.schedule, Live):
            return alpha_bar(self.schedule.beta())[t]
        if isinstance(t, int):
            return self._tables[torch.device("cpu")][t]
        if t.device not in self._tables:
            self._tables[t.device] = self._tables[torch.device("cpu")].to(t.device)
        return self._tables[t.device][t]

    def kept(self, t: Time, s: Time) -> Float64[Tensor, "*B"]:
        """alpha-bar_t / alpha-bar_s, the share of x_s that x_t keeps; for s = t - 1 it is 1 - beta_t."""
        return self.alpha_bar(t) / self.alpha_bar(s)

    @abstractmethod
    def stationary(self, x: Images) -> Law:
        """The law that every transition leaves as it is, in the shape of x: that of x_T, the prior."""

    @abstractmethod
    def transition(self, x_s: Images, t: Time, s: Time) -> Law:
        """q(x_t | x_s), s < t."""

    @abstractmethod
    def posterior(self, x_t: Images, x_0: Images, t: Time, s: Time) -> Law:
        """q(x_s | x_t, x_0), s < t."""

    @abstractmethod
    def step_entropy(self, x_0: Images, t: Time) -> Images:
        """H_q(X_t | X_{t-1}, X_0 = x_0) of each element, in nats."""

    def check(self, x_0: Images) -> None:
        """Raises ValueError for data that the process is not defined on."""


@dataclass
class GaussianProcess(PerturbationProcess, MarkovProcess):
    """q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I) (Sohl-Dickstein 2015; Ho et al. 2020, Eq. 2)."""

    def stationary(self, x: Images) -> Gaussian:
        return Gaussian(torch.zeros_like(x), torch.ones_like(x))

    def step_entropy(self, x_0: Images, t: Time) -> Images:
        return self.transition(x_0, t, t - 1).entropy()

    def prior(self, noise: Noise, shape: Sequence[int]) -> Images:
        return noise.normal(Purpose.PRIOR, shape)

    def signal(self, t: Time) -> Float64[Tensor, "*B"]:
        """sqrt(alpha-bar_t) (Ho et al. 2020, Eq. 4)."""
        return self.alpha_bar(t).sqrt()

    def sigma(self, t: Time) -> Float64[Tensor, "*B"]:
        """sqrt(1 - alpha-bar_t) (Ho et al. 2020, Eq. 4)."""
        return (1 - self.alpha_bar(t)).sqrt()

    def transition(self, x_s: Images, t: Time, s: Time) -> Gaussian:
        """N(sqrt(a) x_s, (1 - a) I), a = alpha-bar_t / alpha-bar_s; for s = t - 1, 1 - a is beta_t (Eq. 2)."""
        a = self.kept(t, s)
        return Gaussian(per_image(a.sqrt(), x_s) * x_s, per_image((1 - a).sqrt(), x_s))

    def posterior(self, x_t: Images, x_0: Images, t: Time, s: Time) -> Gaussian:
        """N(mu~_t(x_t, x_0), beta~_t I) (Ho et al. 2020, Eq. 6-7). At s = 0 it is x_0 itself, with std 0."""
        of_data, of_image, std = self.posterior_coefficients(t, s)
        mean = per_image(of_data, x_t) * x_0 + per_image(of_image, x_t) * x_t
        return Gaussian(mean, per_image(std, x_t))

    def posterior_coefficients(
        self, t: Time, s: Time
    ) -> tuple[Float64[Tensor, "*B"], Float64[Tensor, "*B"], Float64[Tensor, "*B"]]:
        """The weights of x_0 and of x_t in mu~_t, and sqrt(beta~_t) (Ho et al. 2020, Eq. 7)."""
        a_t, a_s, a = self.alpha_bar(t), self.alpha_bar(s), self.kept(t, s)
        of_data = a_s.sqrt() * (1 - a) / (1 - a_t)
        of_image = a.sqrt() * (1 - a_s) / (1 - a_t)
        return of_data, of_image, ((1 - a_s) / (1 - a_t) * (1 - a)).sqrt()

    def epsilon(self, x_t: Images, x_0: Images, t: Time) -> Images:
        """The noise that leads from x_0 to x_t (Ho et al. 2020, below Eq. 9)."""
        a_t = self.alpha_bar(t)
        return (x_t - per_image(a_t.sqrt(), x_t) * x_0) / per_image((1 - a_t).sqrt(), x_t)


@dataclass
class BinomialProcess(MarkovProcess):
    """q(x_t = 1 | x_{t-1}) = x_{t-1} (1 - beta_t) + r beta_t, x in {0, 1} (Sohl-Dickstein 2015, Table 1).

    rate: r, of ones in the prior; 0.5 in Table 1, the data's own mean in appendix D.1.2.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"process.rate must lie between 0 and 1, got {self.rate}")

    def check(self, x_0: Images) -> None:
        if not bool(((x_0 == 0) | (x_0 == 1)).all()):
            low, high = float(x_0.min()), float(x_0.max())
            raise ValueError(f"process=binomial needs data of zeros and ones, got values from {low:g} to {high:g}")

    def stationary(self, x: Images) -> Bernoulli:
        return Bernoulli(torch.full_like(x, self.rate))

    def step_entropy(self, x_0: Images, t: Time) -> Images:
        """The entropy of a step from 1 and of one from 0, weighted by where x_{t-1} is."""
        one = self.transition(x_0, t - 1, 0).probability
        from_one = self.transition(torch.ones_like(x_0), t, t - 1).entropy()
        return one * from_one + (1 - one) * self.transition(torch.zeros_like(x_0), t, t - 1).entropy()

    def prior(self, noise: Noise, shape: Sequence[int]) -> Images:
        return (noise.uniform(Purpose.PRIOR, shape) <= self.rate).float()

    def marginal(self, x_0: Images, t: Time) -> Bernoulli:
        """B(alpha-bar_t x_0 + (1 - alpha-bar_t) r)."""
        return self.transition(x_0, t, 0)

    def transition(self, x_s: Images, t: Time, s: Time) -> Bernoulli:
        """B(a x_s + (1 - a) r), a = alpha-bar_t / alpha-bar_s."""
        a = self.kept(t, s)
        return Bernoulli(per_image(a, x_s) * x_s + per_image((1 - a) * self.rate, x_s))

    def posterior(self, x_t: Images, x_0: Images, t: Time, s: Time) -> Bernoulli:
        """Bayes: q(x_s = 1 | x_t, x_0) ∝ q(x_t | x_s = 1) q(x_s = 1 | x_0)."""
        before = self.transition(x_0, s, 0).probability
        if_one = self.transition(torch.ones_like(x_t), t, s).log_prob(x_t).exp() * before
        if_zero = self.transition(torch.zeros_like(x_t), t, s).log_prob(x_t).exp() * (1 - before)
        return Bernoulli(if_one / (if_one + if_zero))


def per_image(coefficient: Float64[Tensor, "*B"], x: Images) -> Float[Tensor, "..."]:
    """A coefficient in the type of x, shaped to multiply it: [B, 1, 1, 1], or a scalar that stays on the CPU."""
    if coefficient.ndim == 0:
        return coefficient.to(x.dtype)
    return coefficient.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def required(process: Process, kind: type[Kind], by: str) -> Kind:
    """`process`, which `by` needs to be of `kind`. Raises ValueError where it is not."""
    if not isinstance(process, kind):
        raise ValueError(f"{by} needs a {kind.__name__}, got process={type(process).__name__}")
    return process
