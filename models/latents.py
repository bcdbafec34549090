"""What a chain's latents show: x̂_0 on the way down, chains that share an x_t, and images between two others.

The experiments of Ho et al. 2020, sections 4.3 and 4.4. All follow the sampler's own chain, so what is seen on the
way to an image is on the way to the image that the sampler draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.diffusion import Chain, Diffusion
from models.noise import Noise, Purpose
from models.processes import Images, PerturbationProcess, required
from models.samplers import Ancestral, last


@dataclass(frozen=True)
class Glimpse:
    """A time of a chain, the x_t there, and what the network makes of it."""

    t: int
    x_t: Images
    x_0: Images


@torch.no_grad()
def progressive(
    diffusion: Diffusion, sampler: Ancestral, shape: Sequence[int], noise: Noise, times: Sequence[int]
) -> Iterator[Glimpse]:
    """x̂_0(x_t) at those of `times` that the chain visits, and its end, t = 0 (Ho et al. 2020, Fig. 6 and 10)."""
    for t, x in sampler.walk(diffusion, shape, noise):
        if t == 0:
            yield Glimpse(0, x, x)
        elif t in times:
            yield Glimpse(t, x, diffusion.x_0(x, t, clip=sampler.clip))


def branched(
    diffusion: Chain, sampler: Ancestral, shape: Sequence[int], noise: Noise, times: Sequence[int], copies: int
) -> Iterator[tuple[int, Images, Float[Tensor, "B copies C H W"]]]:
    """At those of `times` that the chain visits: t, x_t, and `copies` images from each (Ho et al. 2020, Fig. 7).

    Copy c of image i goes on with the noise of image i · copies + c, below t; what led to x_t was drawn above t.
    """
    for t, x in sampler.walk(diffusion, shape, noise):
        if t in times and t > 0:
            apart = noise.index[:, None] * copies + torch.arange(copies, device=noise.index.device)
            shared, own = x.repeat_interleave(copies, 0), Noise(noise.seed, apart.flatten())
            _, x_0 = last(sampler.descend(diffusion, shared, t, own))
            yield t, x, x_0.reshape(len(x), copies, *shape)


def interpolated(
    diffusion: Chain,
    sampler: Ancestral,
    ends: tuple[Images, Images],
    t: int,
    weights: Sequence[float],
    noise: Noise,
) -> Float[Tensor, "B weights C H W"]:
    """p(x_0 | (1 - w) x_t + w y_t) for each weight w, x_t ~ q(x_t | x_0) (Ho et al. 2020, Fig. 8 and 9).

    All of a row shares its noise: that of both ends, and that of the chains down from between them. t may be 0,
    where the images themselves are mixed.
    """
    process = required(diffusion.process, PerturbationProcess, "interpolation")
    epsilon = noise.normal(Purpose.EPSILON, ends[0].shape[1:], step=t)
    x_t, y_t = (process.marginal(end, t).sample(epsilon) for end in ends)
    between = torch.stack([torch.lerp(x_t, y_t, w) for w in weights], 1)
    shared = Noise(noise.seed, noise.index.repeat_interleave(len(weights)))
    _, x_0 = last(sampler.descend(diffusion, between.flatten(0, 1), t, shared))
    return x_0.reshape(between.shape)
