"""The networks of DPM's appendix D.1 against their formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.networks.dense import MlpConfig, RadialBasisConfig
from models.networks.initialization import initialize
from models.networks.readout import ReadoutConfig, bump_functions

CONFIGS = [
    RadialBasisConfig(16),
    RadialBasisConfig(16, ReadoutConfig(5)),
    MlpConfig([50, 50, 50], ReadoutConfig(4)),
]
EACH = pytest.mark.parametrize("config", CONFIGS)


def built(config, channels: int = 2, outputs: int = 2, steps: int = 40, moved: bool = True):
    network = config.build(channels, 1, outputs, steps)
    initialize(network, 0)
    if moved:
        generator = torch.Generator().manual_seed(0)
        for parameter in network.readout.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return network


@EACH
def test_it_starts_by_saying_nothing(config):
    x, t = torch.randn(6, 2, 1, 1), torch.arange(1, 7)
    assert torch.count_nonzero(built(config, moved=False)(x, t)) == 0


@EACH
def test_every_parameter_has_a_gradient(config):
    network = built(config)
    network(torch.randn(200, 2, 1, 1), 1 + torch.arange(200) % 40).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert torch.count_nonzero(parameter.grad) > 0, name


def test_radial_basis_functions_are_normalised_gaussians():
    network = built(RadialBasisConfig(16))
    network.hidden.log_widths.data.uniform_(-1, 0.5)
    x = torch.randn(9, 2)
    centres, widths = network.hidden.centres.detach().numpy(), network.hidden.log_widths.detach().exp().numpy()
    raw = np.exp(-((x.numpy()[:, None] - centres) ** 2).sum(2) / (2 * widths**2))
    assert network.hidden(x).detach().numpy() == pytest.approx(raw / raw.sum(1, keepdims=True), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(("units", "inputs", "width"), [(16, 2, 0.5), (64, 2, 0.25), (27, 3, 2 / 3)])
def test_radial_basis_functions_start_as_wide_as_half_their_distance(units, inputs, width):
    """On a grid of so many cells, which is 4 long each way."""
    widths = built(RadialBasisConfig(units), channels=inputs).hidden.log_widths.exp()
    assert widths.tolist() == pytest.approx([width] * units, rel=1e-6)


def test_each_t_has_a_readout_of_its_own():
    network = built(RadialBasisConfig(16))
    x, t = torch.randn(3, 2, 1, 1), torch.tensor([1, 40, 17])
    hidden = network.hidden(x.flatten(1)).detach().numpy()
    weight, bias = network.readout.weight.detach().numpy(), network.readout.bias.detach().numpy()
    expected = [hidden[row] @ weight[time - 1] + bias[time - 1] for row, time in enumerate(t.tolist())]
    assert network(x, t).detach().flatten(1).numpy() == pytest.approx(np.array(expected), rel=1e-5, abs=1e-6)


def test_the_readout_by_bumps_is_their_weighted_sum():
    network = built(MlpConfig([7], ReadoutConfig(4)))
    x, t = torch.randn(3, 2, 1, 1), torch.tensor([1, 40, 17])
    hidden = network.hidden(x.flatten(1)).detach().numpy()
    weight, bias = network.readout.weight.detach().numpy(), network.readout.bias.detach().numpy()
    each = np.einsum("bh,jho->bjo", hidden, weight) + bias
    expected = (bump_functions(t, 40, 4).numpy()[:, :, None] * each).sum(1)
    assert network(x, t).detach().flatten(1).numpy() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_bump_functions_are_those_of_the_official_code():
    """generate_temporal_basis of github.com/Sohl-Dickstein/Diffusion-Probabilistic-Models, model.py."""
    xx, centres = np.linspace(-1, 1, 50), np.linspace(-1, 1, 6)
    width = (centres[1] - centres[0]) / 2
    basis = np.exp(-((xx[:, None] - centres) ** 2) / (2 * width**2))
    basis /= basis.sum(1, keepdims=True)
    assert bump_functions(torch.arange(1, 51), 50, 6).numpy() == pytest.approx(basis, abs=1e-6)


def test_the_heartbeats_network_is_the_papers():
    widths = [layer.weight.shape for layer in built(MlpConfig(), 20, 1).hidden if hasattr(layer, "weight")]
    assert widths == [(50, 20), (50, 50), (50, 50)]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: RadialBasisConfig(0), r"network\.units"),
        (lambda: MlpConfig([]), r"network\.widths"),
        (lambda: ReadoutConfig(1), r"network\.readout\.bumps must be 0 or at least 2, got 1"),
    ],
)
def test_bad_input_is_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
