"""The U-Net: diffusers' UNet2DModel with the same weights gives the same outputs and the same gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DModel
from scipy import stats

from models.classes import NO_CLASS
from models.networks.initialization import initialize
from models.networks.layers import Attention, sinusoids
from models.networks.unet import UNet, UNetConfig
from tests.oracles import as_diffusers

LSUN = [1, 1, 2, 2, 4, 4]


@pytest.mark.parametrize(
    ("config", "resolution", "parameters"),
    [
        (UNetConfig(128, [1, 2, 2, 2]), 32, 35_746_307),
        (UNetConfig(128, LSUN), 256, 113_673_219),
        (UNetConfig(192, LSUN), 256, 255_677_955),
    ],
    ids=["cifar10", "lsun", "lsun_large"],
)
def test_the_parameters_are_as_many_as_the_papers(config, resolution, parameters):
    with torch.device("meta"):
        network = config.build(3, resolution)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def randomized(config: UNetConfig, image_channels: int, resolution: int) -> UNet:
    """A network in which nothing is zero, so that every layer counts."""
    network = config.build(image_channels, resolution).eval()
    initialize(network, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


def of_diffusers(config: UNetConfig, image_channels: int, resolution: int, **more: object) -> UNet2DModel:
    """The same network in diffusers, in the settings that make it DDPM's."""
    attends = [resolution >> level in config.attention for level in range(len(config.multipliers))]
    return UNet2DModel(
        sample_size=resolution,
        in_channels=image_channels,
        out_channels=image_channels,
        block_out_channels=tuple(config.channels * m for m in config.multipliers),
        layers_per_block=config.blocks,
        down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        norm_num_groups=config.groups,
        norm_eps=1e-6,
        attention_head_dim=None,
        downsample_padding=0,
        freq_shift=1,
        flip_sin_to_cos=False,
        **more,
    ).eval()


LAYOUTS = {
    "cifar10": (UNetConfig(16, [1, 2, 2, 2], groups=8), 3, 32),
    "lsun": (UNetConfig(8, LSUN, attention=[4], groups=4), 3, 64),
    "digits": (UNetConfig(16, [1, 2], blocks=1, attention=[4, 8], groups=8), 1, 8),
}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def twins(request):
    """Our network and diffusers' with its weights, two images and their times."""
    ours, theirs = randomized(*request.param), of_diffusers(*request.param)
    theirs.load_state_dict(as_diffusers(ours, dict(ours.named_parameters())), strict=True)
    _, image_channels, resolution = request.param
    x = torch.randn(2, image_channels, resolution, resolution, generator=torch.Generator().manual_seed(2))
    return ours, theirs, x, torch.tensor([1, 1000])


def test_outputs_are_those_of_diffusers(twins):
    ours, theirs, x, t = twins
    with torch.no_grad():
        found, expected = ours(x, t), theirs(x, t - 1).sample  # theirs counts t from 0
    assert expected.abs().mean() > 0.1, "an output of nothing would prove nothing"
    assert float((found - expected).abs().max()) <= 1e-5


def test_gradients_are_those_of_diffusers(twins):
    ours, theirs, x, t = twins
    ours(x, t).square().mean().backward()
    theirs(x, t - 1).sample.square().mean().backward()
    found = as_diffusers(ours, {name: parameter.grad for name, parameter in ours.named_parameters()})
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-5 * max(1, float(gradient.abs().max())), name


def test_the_map_to_diffusers_names_carries_every_weight_once(twins):
    ours, theirs, _, _ = twins
    carried = as_diffusers(ours, dict(ours.named_parameters()))
    assert carried.keys() == theirs.state_dict().keys()
    assert sum(tensor.numel() for tensor in carried.values()) == sum(p.numel() for p in ours.parameters())


CLASSES = UNetConfig(16, [1, 2], blocks=1, attention=[4], groups=8, classes=5)


@pytest.fixture(scope="module")
def told() -> UNet:
    """A network that knows five classes."""
    return randomized(CLASSES, 1, 8)


def test_a_class_is_added_to_the_time_as_in_diffusers(told):
    """Their sixth class is our none, whose row is the first."""
    theirs = of_diffusers(CLASSES, 1, 8, num_class_embeds=6)
    named = dict(told.named_parameters())
    rows = named.pop("time.classes.weight")
    theirs.load_state_dict(
        {**as_diffusers(told, named), "class_embedding.weight": torch.cat((rows[1:], rows[:1]))}, strict=True
    )
    x, t = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(1, 601, 100)
    with torch.no_grad():
        found = told(x, t, torch.tensor([0, 1, 2, 3, 4, NO_CLASS]))
        expected = theirs(x, t - 1, class_labels=torch.arange(6)).sample
    assert float((found - expected).abs().max()) <= 1e-5
    assert float((found - told(x, t)).abs()[:5].amax((1, 2, 3)).min()) > 1e-3, "a class must make a difference"


def test_without_a_class_it_draws_as_with_the_one_that_stands_for_none(told):
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([1, 9])
    assert torch.equal(told(x, t), told(x, t, torch.tensor([NO_CLASS, NO_CLASS])))


def test_classes_add_their_rows_and_leave_every_other_weight_as_it_was(told):
    plain, classed = (replace(CLASSES, classes=count).build(1, 8) for count in (0, 5))
    initialize(plain, seed=3)
    initialize(classed, seed=3)
    before, after = dict(plain.named_parameters()), dict(classed.named_parameters())
    assert after.keys() - before.keys() == {"time.classes.weight"}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    rows = after["time.classes.weight"]
    assert rows.shape == (6, 64)
    assert stats.kstest(rows.detach().flatten().numpy(), "norm").pvalue > 0.01


def test_a_network_of_no_classes_refuses_them():
    network = randomized(replace(CLASSES, classes=0), 1, 8)
    with pytest.raises(ValueError, match=r"network\.classes=0 takes no condition"):
        network(torch.zeros(1, 1, 8, 8), torch.tensor([1]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"network\.classes must be at least 0 .* got -1"):
        replace(CLASSES, classes=-1)


def test_an_untrained_network_says_nothing():
    network = UNetConfig(8, [1, 2], attention=[4], groups=4).build(3, 8)
    initialize(network, seed=0)
    assert torch.count_nonzero(network(torch.randn(2, 3, 8, 8), torch.tensor([1, 1000]))) == 0


def test_attention_stands_where_the_resolution_asks_and_in_the_middle():
    network = UNetConfig(8, [1, 2, 2], blocks=1, attention=[8], groups=4).build(3, 16)
    attending = {name for name, module in network.named_modules() if isinstance(module, Attention)}
    # down: stage 16, halve, stage 8, halve, stage 4; up: two stages each of 4, 8, 16 and a doubling between.
    assert attending == {"down.2.attention", "middle_in.attention", "up.3.attention", "up.4.attention"}


def test_dropout_acts_in_training_only():
    network = randomized(UNetConfig(8, [1, 2], attention=[4], groups=4, dropout=0.5), 3, 8)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 4])
    assert torch.equal(network(x, t), network(x, t))
    network.train()
    assert not torch.equal(network(x, t), network(x, t))


@pytest.mark.parametrize("channels", [4, 16, 128])
def test_the_sinusoids_of_time_are_those_of_vaswani(channels):
    t = torch.tensor([1, 2, 500, 1000])
    half = channels // 2
    for row, time in zip(sinusoids(t, channels).double(), t.tolist(), strict=True):
        frequency = 10_000 ** -(torch.arange(half, dtype=torch.float64) / (half - 1))
        angle = (time - 1) * frequency
        assert torch.allclose(row, torch.cat((angle.sin(), angle.cos())), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 48}, r"network\.channels .*32 groups, got 48 times \[1, 2, 2, 2\]"),
        ({"multipliers": []}, r"network\.multipliers"),
        ({"multipliers": [1, 0]}, r"network\.multipliers .*\[1, 0\]"),
        ({"channels": 3, "groups": 3}, r"network\.channels must be even and at least 4, got 3"),
        ({"channels": 2, "groups": 2}, r"network\.channels must be even and at least 4, got 2"),
        ({"blocks": 0}, r"network\.blocks must be at least 1, got 0"),
        ({"dropout": 1.0}, r"network\.dropout must lie in \[0, 1\), got 1\.0"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**values)


def test_a_resolution_that_does_not_halve_is_refused():
    with pytest.raises(ValueError, match=r"data\.resolution must be a multiple of 8.*got 28"):
        UNetConfig(8, [1, 2, 2, 2], groups=4).build(1, 28)
