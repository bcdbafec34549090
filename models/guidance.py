"""Classifier-free guidance (Ho & Salimans 2022): a class, followed further than the network was taught."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from models.classes import NO_CLASS
from models.diffusion import Chain, Condition, Network
from models.parameterizations import Output
from models.processes import Images


@dataclass(frozen=True)
class Guided:
    """A network that answers (1 + w) output(x_t, c) - w output(x_t, ∅) (Ho & Salimans 2022, Eq. 6).

    At w = 0 it is the plain conditional network; what others call a guidance scale s is w = s - 1.

    The combination is taken of the noise, of x̂_0, of v, of the posterior's mean or of the score, whichever the
    network gives: at a given x_t each is an affine function of the others and the weights sum to 1, so all come to
    the same. Channels after those of x say how wide the reverse law is, and stay as they are for the class.
    """

    network: Network
    weight: float

    def __call__(self, x: Images, t: Int64[Tensor, " B"], condition: Condition = None) -> Output:
        if condition is None:
            raise ValueError("guidance is towards a class: it needs the class of each image, got none")
        nothing = torch.full_like(condition, NO_CLASS)
        both = self.network(torch.cat((x, x)), torch.cat((t, t)), torch.cat((condition, nothing)))
        given, free = both.chunk(2)
        mean = (1 + self.weight) * given[:, : x.shape[1]] - self.weight * free[:, : x.shape[1]]
        return torch.cat((mean, given[:, x.shape[1] :]), dim=1)


def guided(diffusion: Chain, weight: float) -> Chain:
    """The diffusion with guidance of this weight, at twice the cost; with a weight of 0 it is left as it is."""
    return replace(diffusion, network=Guided(diffusion.network, weight)) if weight else diffusion
