"""The bound as an objective: unbiased on data of known entropy, finite gradients, and the hybrid's two halves."""

from __future__ import annotations

import math

import pytest
import torch

from models.diffusion import Diffusion
from models.likelihood import Decoder
from models.networks.initialization import initialize
from models.networks.unet import UNetConfig
from models.noise import Noise, Purpose
from models.objectives import SimpleLoss
from models.parameterizations import Data, Epsilon, FirstVariance, PosteriorMean, Variance
from models.processes import GaussianProcess
from models.schedules import Linear
from models.variational import Hybrid, VariationalBound
from tests.oracles import GaussianData, linear_alpha_bar

STEPS = 8
TABLE = linear_alpha_bar(STEPS, 0.02, 0.4)
PROCESS = GaussianProcess(Linear(STEPS, 0.02, 0.4))
# Table 2 of Ho et al. 2020: what is predicted, and the variance.
TABLE_2 = [
    (kind, variance)
    for kind in (PosteriorMean, Epsilon, Data)
    for variance in (Variance.learned, Variance.small, Variance.large)
]


def unet(outputs: int) -> torch.nn.Module:
    network = UNetConfig(8, [1, 2], blocks=1, attention=[4], dropout=0.0, groups=4).build(1, 8, outputs)
    initialize(network, seed=0)
    return network


def pixels(count: int) -> torch.Tensor:
    words = Noise(5, torch.arange(count)).uniform(Purpose.PRIOR, (1, 8, 8))
    return (words * 255).round() / 127.5 - 1


def test_its_mean_is_the_entropy_of_standard_normal_data_in_bits():
    """With the exact reverse law the bound is the likelihood: 2.0471 bits a dimension."""
    index = torch.arange(40_000)
    x_0 = Noise(9, index).normal(Purpose.PRIOR, (1, 2, 2)).double()
    parameterization = Data(Variance.large, FirstVariance.beta_1)
    diffusion = Diffusion(PROCESS, parameterization, GaussianData(0, 1).data_network(TABLE))
    for weight in (1.0, 1 / STEPS):
        loss = VariationalBound(Decoder.density, weight)(diffusion, x_0, Noise(0, index)).loss / weight
        assert abs(float(loss.mean()) - 2.047095585180641) < 4 * float(loss.std()) / len(index) ** 0.5


@pytest.mark.parametrize(("kind", "variance"), TABLE_2)
@pytest.mark.parametrize("decoder", list(Decoder))
def test_every_cell_of_table_2_has_finite_losses_and_gradients_at_every_t(kind, variance, decoder):
    parameterization = kind(variance)
    network = unet(parameterization.outputs)
    diffusion = Diffusion(PROCESS, parameterization, network)
    terms = VariationalBound(decoder)(diffusion, pixels(64), Noise(0, torch.arange(64)))
    assert set(terms.t.tolist()) == set(range(1, STEPS + 1))
    assert bool(terms.loss.isfinite().all())
    terms.loss.mean().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    rows = network.conv_out.weight.grad.flatten(1).norm(dim=1)
    assert len(rows) == parameterization.outputs
    assert float(rows.min()) > 0


@pytest.mark.parametrize("kind", [Epsilon, PosteriorMean])
def test_a_network_that_means_the_same_has_the_same_bound_in_any_parameterization(kind):
    def network(x, t, condition):
        x_0 = 0.3 * torch.sin(3 * x)
        return kind().target(PROCESS, x_0, x, PROCESS.epsilon(x, x_0, t), t)

    x_0, noise = pixels(32).double(), Noise(1, torch.arange(32))
    said_by_data = Diffusion(PROCESS, Data(), lambda x, t, condition: 0.3 * torch.sin(3 * x))
    one = VariationalBound()(Diffusion(PROCESS, kind(), network), x_0, noise).loss
    assert torch.allclose(one, VariationalBound()(said_by_data, x_0, noise).loss, rtol=1e-9)


def test_with_one_step_it_is_the_decoder_and_the_prior_by_hand():
    process, x_0 = GaussianProcess(Linear(1, 0.04, 0.04)), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    loss = VariationalBound(Decoder.density)(
        Diffusion(process, Data(), lambda x, t, condition: 0 * x), x_0, Noise(0, torch.arange(1))
    ).loss
    expected = 0.5 * math.log(2 * math.pi * 0.04) + 0.5 * (0.04 - 1 - math.log(0.04))
    assert float(loss) * math.log(2) == pytest.approx(expected, rel=1e-9)


def test_hybrid_trains_the_mean_by_the_simple_loss_and_the_spread_by_the_bound():
    x_0, noise = pixels(32), Noise(2, torch.arange(32))
    gradients = []
    for objective, variance in (
        (Hybrid(weight=0.5), Variance.learned),
        (VariationalBound(weight=0.5), Variance.learned),
        (SimpleLoss(), Variance.large),
    ):
        spread = torch.zeros(1, requires_grad=True)
        slope = torch.full((1,), 0.2, requires_grad=True)

        def network(x, t, condition, spread=spread, slope=slope, variance=variance):
            both = (slope * x, spread.expand_as(x))
            return torch.cat(both, 1) if variance is Variance.learned else both[0]

        terms = objective(Diffusion(PROCESS, Epsilon(variance), network), x_0, noise)
        terms.loss.mean().backward()
        gradients.append((terms.loss.detach(), slope.grad, spread.grad))
    hybrid, bound, simple = gradients
    assert torch.allclose(hybrid[0], simple[0] + bound[0], rtol=1e-5)
    assert torch.allclose(hybrid[1], simple[1], rtol=1e-6)
    assert torch.allclose(hybrid[2], bound[2], rtol=1e-6)
    assert float(bound[2].abs()) > 0


def test_micro_batches_have_the_terms_of_the_whole_batch():
    x_0, noise = pixels(24), Noise(0, torch.arange(100, 124))
    for objective, variance in ((VariationalBound(), Variance.small), (Hybrid(), Variance.learned)):
        network = lambda x, t, condition, v=variance: torch.cat([x] * Epsilon(v).outputs, 1)  # noqa: E731
        diffusion = Diffusion(PROCESS, Epsilon(variance), network)
        whole = objective(diffusion, x_0, noise)
        parts = [objective(diffusion, x_0[rows], noise[rows]) for rows in (slice(0, 1), slice(1, 24))]
        assert torch.equal(torch.cat([part.loss for part in parts]), whole.loss)
        assert torch.equal(torch.cat([part.t for part in parts]), whole.t)


@pytest.mark.parametrize("kind", [VariationalBound, Hybrid])
def test_a_weight_that_is_not_positive_is_refused(kind):
    with pytest.raises(ValueError, match=r"objective\.weight must be positive, got 0.0"):
        kind(weight=0.0)
