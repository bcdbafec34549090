"""The best K of the swiss roll: its exact posterior by quadrature along the curve, as a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_pipeline.synthetic import SwissRoll
from models.bound import bound
from models.diffusion import Chain
from models.noise import Noise
from models.processes import GaussianProcess
from models.reverse import GaussianKernel, Mean
from models.schedules import Geometric

COUNT, POINTS = 200, 8000


def exact_posterior(process: GaussianProcess):
    """The output that makes GaussianKernel the best diagonal one: the moments of x_0 given x_t over the curve.

    The points are 1.6e-3 apart on average, of the order of the least noise that is asked about.
    """
    curve = torch.from_numpy(SwissRoll.curve((np.arange(POINTS) + 0.5) / POINTS))

    def network(x, t, condition):
        time, flat = int(t[0]), x.flatten(1)
        signal, sigma = float(process.signal(time)), float(process.sigma(time))
        weight = torch.softmax(-torch.cdist(flat, signal * curve).square() / (2 * sigma**2), 1)
        mean = weight @ curve
        spread = (weight @ curve**2 - mean**2).clamp(min=0)
        of_data, _, std = process.posterior_coefficients(time, time - 1)
        variance = std**2 + of_data**2 * spread
        moved = torch.logit(variance) - torch.logit(1 - process.kept(time, time - 1))
        return torch.cat((mean - signal * flat, moved), 1)[:, :, None, None]

    return network


@pytest.mark.parametrize(("first", "measured"), [(1e-6, 3.72), (1e-4, 0.65)])
def test_the_exact_posterior_attains_the_best_K_of_forty_steps(first, measured):
    """Measured by a quadrature of its own; the likelihood of a bare curve has no end, so beta_1 sets the scale."""
    process = GaussianProcess(Geometric(40, first))
    chain = Chain(process, GaussianKernel(Mean.data), exact_posterior(process))
    shares = (np.arange(COUNT) + 0.5) / COUNT
    x_0 = torch.from_numpy(SwissRoll.curve(shares))[:, :, None, None]
    k = bound(chain, x_0, Noise(0, torch.arange(COUNT))).bits
    assert float(k.mean()) == pytest.approx(measured, abs=4 * float(k.std()) / COUNT**0.5 + 0.01)
