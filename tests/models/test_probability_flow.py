"""The probability flow's likelihood: exact for Gaussian data under every schedule, near it for a mixture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from models.diffusion import Diffusion
from models.noise import Noise
from models.parameterizations import Data, Epsilon
from models.probability_flow import ProbabilityFlow, Trace
from models.processes import GaussianProcess
from models.schedules import Cosine, Linear, Reciprocal
from tests.oracles import GaussianData, Mixture


def exact(process: GaussianProcess, law) -> Diffusion:
    table = np.concatenate(([1.0], np.cumprod(1 - process.schedule.beta().numpy())))
    return Diffusion(process, Data(), law.data_network(table))


@pytest.mark.parametrize(
    ("schedule", "tolerance"), [(Linear(), 5e-5), (Cosine(1000), 5e-5), (Reciprocal(1000), 1e-3)]
)
@pytest.mark.parametrize("law", [GaussianData(0.0, 1.0), GaussianData(0.3, 0.5), GaussianData(-0.2, 1.7)])
def test_it_is_the_density_of_gaussian_data(schedule, tolerance, law):
    """Exactly, that of where the flow takes N(0, I): the data's but for the trace of it that is left at T."""
    x_0 = law.mean + law.std * torch.linspace(-2.5, 2.5, 6, dtype=torch.float64).reshape(6, 1, 1, 1)
    found = ProbabilityFlow()(exact(GaussianProcess(schedule), law), x_0, Noise(0, torch.arange(6)))
    a = float(np.prod(1 - schedule.beta().numpy()))
    slope = law.std / (a * law.std**2 + 1 - a) ** 0.5
    expected = stats.norm.logpdf(x_0.flatten().numpy(), law.mean * (1 - slope * a**0.5), slope)
    assert np.allclose(found.numpy(), expected, rtol=0, atol=tolerance)
    assert np.allclose(expected, stats.norm.logpdf(x_0.flatten().numpy(), law.mean, law.std), rtol=0, atol=6e-3)


def test_it_is_the_density_of_a_mixture():
    data = Mixture((0.5, 0.5), (-0.5, 0.5), (0.15, 0.25))
    x_0 = torch.linspace(-1, 1.2, 9, dtype=torch.float64).reshape(9, 1, 1, 1)
    found = ProbabilityFlow()(exact(GaussianProcess(), data), x_0, Noise(0, torch.arange(9)))
    parts = zip(data.weights, data.means, data.stds, strict=True)
    density = sum(w * stats.norm.pdf(x_0.flatten().numpy(), m, s) for w, m, s in parts)
    assert np.allclose(found.numpy(), np.log(density), rtol=0, atol=1e-3)


def test_hutchinsons_trace_is_exact_where_the_jacobian_is_diagonal_and_unbiased_where_not():
    """Random signs: z'Jz is tr J for a diagonal J; turning the data mixes the axes and leaves only the mean."""
    law, x_0 = GaussianData(0.3, 0.5), torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 1, 2, 2)
    diffusion = exact(GaussianProcess(Linear(100, 1e-3, 0.2)), law)
    noise = Noise(0, torch.arange(2))
    one, other = (ProbabilityFlow(trace)(diffusion, x_0, noise) for trace in Trace)
    assert torch.allclose(one, other, rtol=0, atol=1e-10)
    # N(0, diag(.04, 1)), turned by 45 degrees: x_0 = R y, and the optimal denoiser turns with it.
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / 2**0.5
    variance = torch.tensor([0.04, 1.0], dtype=torch.float64)
    table = torch.from_numpy(np.concatenate(([1.0], np.cumprod(1 - np.linspace(1e-3, 0.2, 100)))))

    def network(x, t, condition):
        a = table[t][:, None]
        y = x.flatten(1) @ turn
        return (a.sqrt() * variance / (a * variance + 1 - a) * y @ turn.T).reshape(x.shape)

    turned = Diffusion(GaussianProcess(Linear(100, 1e-3, 0.2)), Data(), network)
    point = torch.tensor([0.3, -0.5], dtype=torch.float64)
    x_0 = point.reshape(1, 1, 1, 2).expand(4000, 1, 1, 2)
    index = torch.arange(4000)
    covariance = (turn * variance) @ turn.T
    expected = stats.multivariate_normal(np.zeros(2), covariance.numpy()).logpdf(point.numpy())
    all_axes = ProbabilityFlow(Trace.exact)(turned, x_0[:1], Noise(0, index[:1]))
    assert float(all_axes) == pytest.approx(expected, abs=5e-3)
    drawn = ProbabilityFlow(Trace.hutchinson)(turned, x_0, Noise(0, index))
    assert float(drawn.std()) > 0.1
    assert abs(float(drawn.mean() - all_axes)) < 4 * float(drawn.std()) / 4000**0.5


def test_the_probe_of_an_image_is_keyed_by_its_number():
    flow, x_0 = ProbabilityFlow(Trace.hutchinson), torch.zeros(6, 1, 4, 4)
    whole = flow.probe(x_0, Noise(0, torch.arange(6)))
    assert torch.equal(whole[:, 2:5], flow.probe(x_0[2:5], Noise(0, torch.arange(2, 5))))
    assert not torch.equal(whole, flow.probe(x_0, Noise(1, torch.arange(6))))
    assert set(whole.unique().tolist()) == {-1.0, 1.0}


def test_fewer_steps_will_do_and_the_condition_reaches_the_network():
    law, seen, label = GaussianData(0.3, 0.5), [], torch.tensor([4])
    table = np.concatenate(([1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))))

    def network(x, t, condition):
        seen.append(condition)
        return law.epsilon_network(table)(x, t, condition)

    x_0 = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64)
    diffusion = Diffusion(GaussianProcess(), Epsilon(), network)
    found = ProbabilityFlow(steps=50)(diffusion, x_0, Noise(0, torch.arange(1)), label)
    assert float(found) == pytest.approx(stats.norm.logpdf(0.7, 0.3, 0.5), abs=5e-3)
    assert len(seen) == 100
    assert all(condition is label for condition in seen)
