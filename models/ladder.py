"""The noise ladder of score networks (NCSN), and the rules by which NCSNv2 chooses one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from models.noise import Noise, Purpose
from models.processes import Images, PerturbationProcess, Time


@dataclass
class NoiseLadder(PerturbationProcess):
    """q(x_t | x_0) = N(x_0, sigma_t² I), sigma_t geometric (Song & Ermon 2019, section 4.1).

    Noise grows with t, as in every process here: the papers' sigma_1 > … > sigma_L are sigma_T, …, sigma_1, and
    their level i is t = L + 1 - i. The levels are laws side by side, not steps of a chain: there is no posterior.

    levels: L. largest, smallest: the papers' sigma_1 and sigma_L.
    """

    levels: int = 10
    largest: float = 1.0
    smallest: float = 0.01

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"process.levels must be at least 1, got {self.levels}")
        if not 0 < self.smallest <= self.largest < math.inf:
            raise ValueError(
                "process.smallest must be positive and at most process.largest, "
                f"got {self.smallest} and {self.largest}"
            )
        if (self.levels == 1) is not (self.smallest == self.largest):
            raise ValueError(
                "process.smallest and process.largest must be equal for one level and differ for more, "
                f"got {self.smallest} and {self.largest} for process.levels={self.levels}"
            )

    @property
    def steps(self) -> int:
        return self.levels

    @property
    def gamma(self) -> float:
        """The ratio of neighbouring sigmas."""
        return math.exp(math.log(self.largest / self.smallest) / max(1, self.levels - 1))

    @cached_property
    def _tables(self) -> dict[torch.device, Float64[Tensor, " times"]]:
        ends = math.log(self.smallest), math.log(self.largest)
        ladder = torch.exp(torch.linspace(*ends, self.levels, dtype=torch.float64))
        return {torch.device("cpu"): torch.cat((torch.zeros(1, dtype=torch.float64), ladder))}

    def signal(self, t: Time) -> Float64[Tensor, "*B"]:
        """1: the data stays as it is."""
        return torch.ones_like(self.sigma(t))

    def sigma(self, t: Time) -> Float64[Tensor, "*B"]:
        if isinstance(t, int):
            return self._tables[torch.device("cpu")][t]
        if t.device not in self._tables:
            self._tables[t.device] = self._tables[torch.device("cpu")].to(t.device)
        return self._tables[t.device][t]

    def prior(self, noise: Noise, shape: Sequence[int]) -> Images:
        """N(0, largest² I), which q(x_T) comes to where the largest sigma dwarfs the data."""
        return self.largest * noise.normal(Purpose.PRIOR, shape)


def largest_distance(x: Float[Tensor, "N ..."], chunk: int = 1024) -> float:
    """The largest distance between two of the data: sigma_1 (Song & Ermon 2020, Technique 1)."""
    rows = x.flatten(1)
    return max(float(torch.cdist(part, rows).max()) for part in torch.split(rows, chunk))


def overlap(gamma: float, dimension: int) -> float:
    """How much of a level's shell of noise the level below covers (Song & Ermon 2020, Technique 2)."""
    offset = math.sqrt(2 * dimension) * (gamma - 1)
    return normal_cdf(offset + 3 * gamma) - normal_cdf(offset - 3 * gamma)


def normal_cdf(x: float) -> float:
    """Φ(x)."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def levels_for(dimension: int, largest: float, smallest: float, least_overlap: float = 0.5) -> int:
    """The fewest levels whose neighbours overlap by so much (Song & Ermon 2020, Technique 2).

    The paper asks for about 0.5; the ladders it publishes (232, 500 and 788 levels) overlap by 0.57.
    """
    if not 0 < least_overlap <= 0.99:
        raise ValueError(f"least_overlap must lie in (0, 0.99], got {least_overlap}")
    if not 0 < smallest < largest:
        raise ValueError(
            "a ladder goes from a positive smallest sigma to a larger one, the largest distance between two of "
            f"the data, got smallest={smallest} and largest={largest}"
        )
    span = math.log(largest / smallest)
    # The overlap at gamma = 1 is Φ(3) - Φ(-3), and it falls as gamma grows: it can be bisected.
    low, high = 0, 1
    while overlap(math.exp(span / high), dimension) < least_overlap:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = overlap(math.exp(span / middle), dimension) >= least_overlap
        low, high = (low, middle) if fits else (middle, high)
    return high + 1


def variance_ratio(epsilon: float, steps: int, ladder: NoiseLadder) -> float:
    """The variance after a level's Langevin steps, over sigma_i² (Song & Ermon 2020, Proposition 3).

    For data at one point, arriving with the variance of the level above. It should be near 1 (Technique 4).
    """
    a = epsilon / ladder.smallest**2
    stationary = 2 * a / (1 - (1 - a) ** 2)
    return math.pow(1 - a, 2 * steps) * (ladder.gamma**2 - stationary) + stationary


def step_size_for(steps: int, ladder: NoiseLadder) -> float:
    """The step size epsilon that brings the variance ratio nearest to 1 (Song & Ermon 2020, Technique 4)."""
    fractions = torch.logspace(-4, 0, 40_001, dtype=torch.float64)[:-1]
    candidates: list[float] = (fractions * ladder.smallest**2).tolist()
    return min(candidates, key=lambda epsilon: abs(variance_ratio(epsilon, steps, ladder) - 1))
