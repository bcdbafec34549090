"""What trajectories say where it is known: the stationary chain of N(0, 1)."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from models.diffusion import Chain
from models.noise import Noise, Purpose
from models.processes import GaussianProcess
from models.reverse import GaussianKernel
from models.schedules import Linear
from trainer.metrics.trajectories import importance, reverse_entropies

CHAIN = Chain(
    GaussianProcess(Linear(20, 0.01, 0.2)), GaussianKernel(), lambda x, t, c: torch.cat((0 * x, 0 * x), 1)
)


def test_at_rest_the_estimate_is_the_density_whatever_the_trajectories():
    x_0 = Noise(3, torch.arange(9)).normal(Purpose.PRIOR, (1, 1, 2)).double()
    found = importance(CHAIN, x_0, seed=0, trajectories=4)
    truth = stats.norm.logpdf(x_0.numpy()).sum() / 9 / math.log(2)
    assert found["importance_log2_p"] == pytest.approx(truth, abs=1e-9)
    assert found["importance_error"] == pytest.approx(0, abs=1e-9)
    assert found["effective_trajectories"] == pytest.approx(4)


def test_the_entropy_of_gaussian_data_lies_between_its_bounds():
    x_0 = torch.zeros(3, 1, 1, 1, dtype=torch.float64)
    rows = reverse_entropies(CHAIN, x_0)
    assert [row["t"] for row in rows] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    for row in rows:
        beta = float(CHAIN.process.schedule.beta()[row["t"] - 1])
        truth = 0.5 * math.log2(2 * math.pi * math.e * beta)  # N(0, 1) is stationary: a step back is a step on
        assert row["least_bits"] <= truth + 1e-12
        assert row["most_bits"] == pytest.approx(truth)
