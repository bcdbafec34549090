"""A schedule that is learned: its gradient against finite differences of K with the noise frozen."""

from __future__ import annotations

import pytest
import torch

from models.bound import bound
from models.diffusion import Chain
from models.networks.dense import RadialBasisConfig
from models.networks.initialization import initialize
from models.networks.scheduled import Scheduled
from models.noise import Noise, Purpose
from models.objectives import LowerBound
from models.processes import GaussianProcess
from models.reverse import GaussianKernel
from models.schedules import Geometric, Learned, Live

STEPS = 6


def scheduled() -> tuple[Scheduled, Chain]:
    schedule = Learned(STEPS, 1e-3)
    network = Scheduled(RadialBasisConfig(4).build(2, 1, 2, STEPS), schedule)
    initialize(network, 0)
    network = network.double()
    for parameter in network.network.readout.parameters():
        parameter.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    return network, Chain(GaussianProcess(Live(STEPS, now=network.beta)), GaussianKernel(), network)


def test_it_starts_as_the_geometric_schedule_with_a_small_constant_first():
    network, _ = scheduled()
    beta = network.beta().detach()
    assert float(beta[0]) == pytest.approx(1e-3, rel=1e-12)
    assert beta.tolist() == pytest.approx(Geometric(STEPS, 1e-3).beta().tolist(), rel=1e-12)


def test_the_gradient_of_the_loss_is_that_of_K_under_frozen_noise():
    network, chain = scheduled()
    index = torch.arange(300)
    x_0, noise = Noise(1, index).normal(Purpose.PRIOR, (2, 1, 1)).double(), Noise(2, index)
    objective = LowerBound()
    objective(chain, x_0, noise).loss.mean().backward()
    for t in range(STEPS - 1):
        ends = []
        for nudge in (1e-5, -1e-5):
            network.moved.data[t] += nudge
            ends.append(float(objective(chain, x_0, noise).loss.mean().detach()))
            network.moved.data[t] -= nudge
        assert float(network.moved.grad[t]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_ascent_on_the_schedule_alone_raises_K():
    """Narrow data N(0, 0.1²) in one coordinate and the rest in the other, under a kernel that is left as it is."""
    network, chain = scheduled()
    index = torch.arange(1000)
    x_0 = Noise(1, index).normal(Purpose.PRIOR, (2, 1, 1)).double() * torch.tensor([0.1, 1.99**0.5]).reshape(
        2, 1, 1
    )
    before = float(bound(chain, x_0, Noise(3, index)).bits.mean())
    ascent = torch.optim.Adam([network.moved], lr=0.05)
    for step in range(60):
        ascent.zero_grad()
        LowerBound()(chain, x_0, Noise(2 + step, index)).loss.mean().backward()
        ascent.step()
    assert float(bound(chain, x_0, Noise(3, index)).bits.mean()) > before + 0.05
    assert float(network.beta().detach()[0]) == pytest.approx(1e-3, rel=1e-12)
