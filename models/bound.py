"""The bound K by its terms, and the entropy of each reverse step (Sohl-Dickstein et al. 2015)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.diffusion import Chain, Condition
from models.noise import Noise, Purpose
from models.processes import Images, MarkovProcess

BIT = math.log(2)


@dataclass(frozen=True)
class K:
    """The terms of K for each image, in nats.

    kl: column t - 2 is KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)) at one x_t ~ q(x_t | x_0). last, first: the
    entropies of q(x_T | x_0) and q(x_1 | x_0). prior: the entropy of p(x_T).
    """

    kl: Float[Tensor, "B terms"]
    last: Float[Tensor, " B"]
    first: Float[Tensor, " B"]
    prior: Float[Tensor, " B"]

    @property
    def bits(self) -> Float[Tensor, " B"]:
        """K of each image, in bits (Eq. 14)."""
        return (self.last - self.first - self.prior - self.kl.sum(1)) / BIT


@dataclass(frozen=True)
class Bound(K):
    """K, and what it is compared with, in nats.

    null: ln p of x_0 under the prior. moments: what K leaves out, since its mean is 0 for data with the moments of
    the prior.
    """

    null: Float[Tensor, " B"]
    moments: Float[Tensor, " B"]

    @property
    def any_moments(self) -> Float[Tensor, " B"]:
        """The bound in its divergence-to-prior form, in bits: with what K leaves out, and so for any data."""
        return self.bits + self.moments / BIT

    @property
    def over_null(self) -> Float[Tensor, " B"]:
        """K - L_null, in bits: what the chain knows beyond its prior."""
        return self.bits - self.null / BIT


@torch.no_grad()
def bound(chain: Chain, x_0: Images, noise: Noise, condition: Condition = None) -> Bound:
    """K, from one trajectory of each image, with p(x_0 | x_1) pinned to the forward kernel (Eq. 13-14, App. B.2).

    The pinned step leaves E ln pi(x_0) / pi(x_1), taken as 0, and E ln p(x_T) is taken as minus the entropy of the
    prior: K bounds the log-likelihood of data with the moments of the prior, which `check_moments` makes sure of.
    What both leave out is `Bound.moments`.
    """
    process, shape = chain.process, x_0.shape[1:]
    process.check(x_0)
    kl = []
    for t in range(2, process.steps + 1):
        x_t = process.marginal(x_0, t).draw(noise, Purpose.EPSILON, shape, step=t).to(x_0.dtype)
        kl.append(step_kl(chain, x_0, x_t, t, condition))
    k = around(process, x_0, torch.stack(kl, dim=1) if kl else x_0.new_zeros(len(x_0), 0))
    prior, first, last = process.stationary(x_0), process.marginal(x_0, 1), process.marginal(x_0, process.steps)
    null = per_sample(prior.log_prob(x_0))
    crossing = per_sample(first.cross_entropy(prior) - last.cross_entropy(prior))
    return Bound(**vars(k), null=null, moments=k.prior + null + crossing)


def around(process: MarkovProcess, x_0: Images, kl: Float[Tensor, "B terms"]) -> K:
    """K with these KL terms: what it has beside them follows from the process alone."""
    return K(
        kl=kl,
        last=per_sample(process.marginal(x_0, process.steps).entropy()),
        first=per_sample(process.marginal(x_0, 1).entropy()),
        prior=per_sample(process.stationary(x_0).entropy()),
    )


def step_kl(
    chain: Chain, x_0: Images, x_t: Images, t: int | Tensor, condition: Condition = None
) -> Float[Tensor, " B"]:
    """KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)) of each image, in nats: one term of Eq. 14."""
    truth = chain.process.posterior(x_t, x_0, t, t - 1)
    return per_sample(truth.kl(chain.reverse(x_t, t, t - 1, condition)))


def entropy_bounds(process: MarkovProcess, x_0: Images, t: int) -> tuple[Tensor, Tensor]:
    """The least and the most that H_q(X_{t-1} | X_t) can be, in nats, over the data x_0 (Eq. 24).

    H(X_t | X_{t-1}) + H(X_{t-1} | X_0) - H(X_t | X_0) ≤ H(X_{t-1} | X_t) ≤ H(X_t | X_{t-1}); the upper one holds
    where H(X_t) ≥ H(X_{t-1}), as it does for a process that tends to its law of most entropy.
    """
    if t < 2:
        raise ValueError(f"t must be at least 2, as data has no entropy of its own here, got {t}")
    before, after = process.marginal(x_0, t - 1).entropy(), process.marginal(x_0, t).entropy()
    upper = per_sample(process.step_entropy(x_0, t))
    return (upper + per_sample(before - after)).mean(), upper.mean()


def check_moments(process: MarkovProcess, x_0: Images, tolerance: float = 0.05) -> None:
    """Raises ValueError for data without the prior's moments, for which K is no bound.

    That is E ln pi(x_0) = -H(pi): unit second moment for a Gaussian, the mean r for a Bernoulli other than 1/2.
    """
    prior = process.stationary(x_0)
    excess = float((prior.log_prob(x_0) + prior.entropy()).mean())
    if abs(excess) > tolerance:
        raise ValueError(
            "K bounds the log-likelihood only of data with the prior's moments (second moment 1, or the mean "
            f"process.rate); E ln pi(x_0) must be -H(pi) to {tolerance}, got {excess:+.4f} beside it, with the "
            f"second moment {float(x_0.square().mean()):.4f}: standardise the data, images by the pixels.mean and "
            "pixels.deviation of their bytes, or evaluate with any_moments=true"
        )


def per_sample(x: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
    """The sum over the elements of each image."""
    return x.flatten(1).sum(1)
