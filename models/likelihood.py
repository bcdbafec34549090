"""The variational bound by its terms, for each image, in nats; and what it says about progressive coding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from models.diffusion import Condition, Diffusion
from models.distributions import Cdf, DiscretizedGaussian, Gaussian
from models.noise import Noise, Purpose
from models.processes import GaussianProcess, Images, Time

PerImage = Float[Tensor, " B"]


class Decoder(Enum):
    """What p(x_0 | x_1) is a law of."""

    bins = "bins"  # pixels of 256 values: the mass of each one's bin (Ho et al. 2020, Eq. 13)
    density = "density"  # real numbers: the density itself


@dataclass(frozen=True)
class Bound:
    """-ln p(x_0) <= L_0 + L_1 + … + L_T of each image, in nats (Ho et al. 2020, Eq. 5).

    terms: column t of 0..T is L_t: 0 the decoder's, T the prior's, and between them the divergences of
        p(x_t | x_{t+1}).
    squared_error: column t - 1 is that of x̂_0(x_t), averaged over the image's dimensions.
    Of a chain that is seen at fewer times, t counts these, upwards.
    """

    terms: Float[Tensor, "B times"]
    squared_error: Float[Tensor, "B T"]

    @property
    def total(self) -> PerImage:
        """The bound."""
        return self.terms.sum(1)

    @property
    def decoder(self) -> PerImage:
        """L_0: the distortion, in nats."""
        return self.terms[:, 0]

    @property
    def prior(self) -> PerImage:
        """L_T, which no parameter changes."""
        return self.terms[:, -1]

    def rate(self) -> Float[Tensor, "B T"]:
        """Column t - 1: what progressive coding has sent once x_t is known, in nats (Ho et al. 2020, Alg. 3-4)."""
        return self.terms[:, 1:].flip(1).cumsum(1).flip(1)

    def rmse(self) -> Float[Tensor, " T"]:
        """Position t - 1: the error of x̂_0(x_t) over all images, on the scale 0..255 (Ho et al. 2020, Table 4)."""
        return 127.5 * self.squared_error.mean(0).sqrt()


@dataclass(frozen=True)
class Likelihood:
    """How the bound is taken.

    decoder: the kind of data. floor, cdf: the least probability of a pixel's value, and the distribution function
        that it is taken by (see DiscretizedGaussian).
    clip: hold x̂_0 within [-1, 1], as the official code does where it evaluates, and not where it trains.
    """

    decoder: Decoder = Decoder.bins
    floor: float = 0.0
    clip: bool = False
    cdf: Cdf = Cdf.exact

    @torch.no_grad()
    def bound(
        self,
        diffusion: Diffusion,
        x_0: Images,
        noise: Noise,
        condition: Condition = None,
        times: Sequence[int] = (),
    ) -> Bound:
        """Every term, each at one x_t drawn from q(x_t | x_0); in float64 if x_0 is.

        times: from T to 0, those at which the chain is seen, as of `fewer_times`; none for all. Seen at fewer
        times, it bounds as well, less tightly (Nichol & Dhariwal 2021, section 4).
        """
        process = diffusion.process
        terms, errors = [], []
        for at, before in reversed(list(pairwise(times or fewer_times(process.steps)))):
            epsilon = noise.normal(Purpose.EPSILON, x_0.shape[1:], at)
            t, s = (torch.full((len(x_0),), time, device=x_0.device) for time in (at, before))
            x_t = process.marginal(x_0, t).sample(epsilon)
            said = diffusion.predict(x_t, t, condition, self.clip)
            terms.append(self.term(process, diffusion.reverse_given(said, x_t, t, s), x_0, x_t, t, s))
            errors.append((said.x_0 - x_0).square().flatten(1).mean(1))
        terms.append(prior_term(process, x_0))
        return Bound(torch.stack(terms, 1), torch.stack(errors, 1))

    def term(
        self, process: GaussianProcess, law: Gaussian, x_0: Images, x_t: Images, t: Time, s: Time
    ) -> PerImage:
        """The term of p(x_s | x_t), which is `law`: a divergence, or the decoder's surprise at s = 0."""
        posterior = process.posterior(x_t, x_0, t, s)
        # At s = 0 the posterior is a point: its divergence is not used, but an infinite one has a gradient of NaN.
        positive = posterior.std.masked_fill(posterior.std == 0, 1)
        divergence = Gaussian(posterior.mean, positive).kl(law).flatten(1).sum(1)
        return torch.where(torch.as_tensor(s) == 0, self.surprise(law, x_0), divergence)

    def surprise(self, law: Gaussian, x_0: Images) -> PerImage:
        """-ln p(x_0 | x_1), where `law` is p(x_0 | x_1)."""
        pixels = DiscretizedGaussian(law.mean, law.std, self.floor, self.cdf)
        log_prob = pixels.log_prob(x_0) if self.decoder is Decoder.bins else law.log_prob(x_0)
        return -log_prob.flatten(1).sum(1)

    @torch.no_grad()
    def along_a_path(
        self, diffusion: Diffusion, x_0: Images, noise: Noise, condition: Condition = None
    ) -> PerImage:
        """-ln p(x_0..x_T) / q(x_1..x_T | x_0) at one path of each image (Ho et al. 2020, Eq. 3).

        Its mean over paths is that of `Bound.total`. Where every reverse law is exact it is -ln p(x_0) on each.
        """
        process, x_s = diffusion.process, x_0
        total = x_0.new_zeros(len(x_0))
        for t in range(1, process.steps + 1):
            forward = process.transition(x_s, t, t - 1)
            x_t = forward.sample(noise.normal(Purpose.EPSILON, x_0.shape[1:], step=t))
            law = diffusion.reverse(x_t, t, t - 1, condition, self.clip)
            total += forward.log_prob(x_t).flatten(1).sum(1)
            total += self.surprise(law, x_0) if t == 1 else -law.log_prob(x_s).flatten(1).sum(1)
            x_s = x_t
        return total - standard_normal(x_s).log_prob(x_s).flatten(1).sum(1)


def fewer_times(total: int, steps: int = 0, power: float = 1.0) -> list[int]:
    """`steps` of the times of a chain (0: all T), from T down to 1, and 0.

    power: 1 is even strides. 3 makes them shorter towards 1, where nearly all of the bound lies. Unlike a
    sampler's times they always have t = 1, from where p(x_0 | x_1) tells one value of a pixel from the next.
    """
    if not (steps == 0 or 2 <= steps <= total):
        raise ValueError(f"steps must be 0, for all, or from 2 to the process's {total} steps, got {steps}")
    if power < 1:
        raise ValueError(f"power must be at least 1, got {power}")
    last = (steps or total) - 1
    return [*(max(1 + i, round(1 + (total - 1) * (i / last) ** power)) for i in range(last, 0, -1)), 1, 0]


def prior_term(process: GaussianProcess, x_0: Images) -> PerImage:
    """L_T, the divergence of q(x_T | x_0) from the prior (Ho et al. 2020, Eq. 5)."""
    return process.marginal(x_0, process.steps).kl(standard_normal(x_0)).flatten(1).sum(1)


def standard_normal(x: Images) -> Gaussian:
    """N(0, I) of the shape of x."""
    return Gaussian(torch.zeros_like(x), torch.ones_like(x))
