"""Bits/dim by the probability flow: of Gaussian images it is the known density's."""

from __future__ import annotations

import math

import pytest
import torch

from models.diffusion import Diffusion
from models.noise import Noise, Purpose
from models.parameterizations import Data
from models.pixels import to_bytes
from models.probability_flow import ProbabilityFlow, Trace
from models.processes import GaussianProcess
from models.schedules import Linear, alpha_bar
from tests.oracles import GaussianData
from trainer.metrics.flow import flow_bits

STD = 0.2


@pytest.mark.parametrize("trace", Trace)
def test_gaussian_images_have_the_entropy_of_their_law(trace):
    process = GaussianProcess(Linear(400, 1e-4, 0.05))
    network = GaussianData(0.0, STD).data_network(alpha_bar(process.schedule.beta()).numpy())
    images = to_bytes(STD * Noise(0, torch.arange(200)).normal(Purpose.PRIOR, (1, 2, 2)))
    diffusion, noise = Diffusion(process, Data(), network), Noise(1, torch.arange(200))
    found = flow_bits(ProbabilityFlow(trace), diffusion, images, noise, batch=64)
    truth = math.log2(STD * 127.5 * math.sqrt(2 * math.pi * math.e))
    assert found["flow_bits_per_dim"] == pytest.approx(truth, abs=4 * found["flow_standard_error"])
    assert found["flow_standard_error"] < 0.05
