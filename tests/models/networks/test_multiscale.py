"""The image network of 2015: convolutions at several scales, a dense path, pixelwise layers and the readout."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models.networks.initialization import initialize
from models.networks.multiscale import MultiScaleConfig, ScaledConv
from models.networks.readout import ReadoutConfig
from models.noise import Noise, Purpose

SMALL = {"layers": 2, "channels": 6, "scales": 3, "dense": [9], "dense_outputs": 3, "pixelwise": [5]}


def network(channels: int = 2, resolution: int = 8, outputs: int = 2, **fields: object):
    built = MultiScaleConfig(**{**SMALL, **fields}).build(channels, resolution, outputs, steps=20)
    initialize(built, 0)
    return built


def answering(**fields: object):
    """A network whose readout, which starts as 0, says something."""
    built = network(**fields)
    for parameter in built.readout.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return built


def images(count: int, channels: int = 2, resolution: int = 8) -> torch.Tensor:
    return Noise(0, torch.arange(count)).normal(Purpose.EPSILON, (channels, resolution, resolution))


def test_it_starts_as_zero_with_as_many_outputs_as_asked_for():
    out = network()(images(3), torch.tensor([1, 10, 20]))
    assert out.shape == (3, 4, 8, 8)
    assert not out.any()


@pytest.mark.parametrize("size", [8, 12])
def test_a_scaled_convolution_is_the_sum_of_its_scales(size):
    layer = ScaledConv(2, 3, 3)
    initialize(layer, 0)
    x = images(2, resolution=size)
    expected = sum(
        functional.interpolate(conv(functional.avg_pool2d(x, factor)), scale_factor=factor, mode="nearest")
        for conv, factor in zip(layer.convs, (1, 2, 4), strict=True)
    )
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_the_initial_law_keeps_the_scale_of_its_input():
    """Each scale adds its share of the variance, so that the sum over white noise at one scale has its third."""
    layer = ScaledConv(64, 64, 3)
    initialize(layer, 0)
    fine = layer.convs[0](images(8, 64, 16)).detach()
    assert float(fine[:, :, 1:-1, 1:-1].var()) == pytest.approx(1 / 3, rel=0.05)


def test_the_paths_meet_in_layers_on_each_pixel_by_itself():
    """Soft rectifiers after the convolutions, tanh after all other layers, for one pixel after the other."""
    built, x, t = answering(), images(2), torch.tensor([4, 15])
    convolutions, connections = built.paths
    h = x
    for layer in convolutions.layers:
        h = torch.log1p(torch.exp(layer(h)))
    g = x.reshape(2, -1)
    for layer in connections.layers:
        g = torch.tanh(g @ layer.weight.T + layer.bias)
    seen = torch.cat((h, g.reshape(2, 3, 8, 8)), 1)
    (last,) = built.pixelwise
    expected = torch.empty(2, 4, 8, 8)
    for row in range(8):
        for column in range(8):
            expected[:, :, row, column] = built.readout(torch.tanh(last(seen[:, :, row, column])), t)
    assert torch.allclose(built(x, t), expected, atol=1e-5)


def changed(built: torch.nn.Module, t: int = 7) -> torch.Tensor:
    """The pixels whose output moves with the pixel in the upper left corner."""
    x = images(1, resolution=32)
    moved = x.clone()
    moved[..., 0, 0] += 1
    time = torch.tensor([t])
    return (built(moved, time) - built(x, time)).abs().amax((0, 1)) > 1e-6


def test_one_scale_sees_near_pixels_three_scales_see_far_and_the_dense_path_sees_all():
    near = changed(answering(resolution=32, scales=1, dense=[]))
    far = changed(answering(resolution=32, scales=3, dense=[]))
    everywhere = changed(answering(resolution=32, layers=0))
    assert near[:3, :3].all()
    assert int(near.sum()) == 9
    assert far[:12, :12].all()
    assert not far[24:, 24:].any()
    assert everywhere.all()


@pytest.mark.parametrize("bumps", [0, 4])
def test_each_pixel_is_read_out_at_the_time_of_its_image(bumps):
    built, t = answering(readout=ReadoutConfig(bumps=bumps)), torch.tensor([3, 17])
    h = torch.randn(2, 8, 8, 5, generator=torch.Generator().manual_seed(0))
    whole = built.readout(h, t)
    one = torch.stack([built.readout(h[:, row, 2], t) for row in range(8)], dim=1)
    assert torch.allclose(whole[:, :, 2], one, atol=1e-6)
    single = built.readout(h[:, 0, 0], t)
    assert torch.allclose(whole[:, 0, 0], single, atol=1e-6)


def test_every_parameter_is_trained():
    built = answering()
    built(images(4), torch.tensor([1, 5, 10, 20])).square().mean().backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in built.parameters())


def test_recomputed_stages_give_the_same_gradient():
    from trainer.engines.network import recompute_stages

    gradients = []
    for recompute in (False, True):
        built = answering()
        if recompute:
            recompute_stages(built)
        built(images(2), torch.tensor([3, 8])).square().mean().backward()
        gradients.append([parameter.grad for parameter in built.parameters()])
    assert all(torch.allclose(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"layers": -1}, r"network\.layers must be at least 0"),
        ({"scales": 0}, r"network\.scales must be at least 1"),
        ({"dense": [0]}, r"network\.dense and network\.pixelwise must be positive"),
        ({"layers": 0, "dense": []}, "leave no path"),
        ({"scales": 5}, r"data\.resolution must be a multiple of 16"),
    ],
)
def test_bad_input_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        network(**fields)


def test_a_condition_is_refused():
    with pytest.raises(ValueError, match="takes no condition"):
        network()(images(1), torch.tensor([1]), torch.tensor([0]))
