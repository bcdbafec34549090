"""Initial weights: the variance of the official code, and a pure function of (seed, name)."""

from __future__ import annotations

import zlib

import pytest
import torch
from scipy import stats
from torch import nn

from models.networks.initialization import initial, initialize, keyed_uniform
from models.networks.layers import Conv2d, Linear
from models.networks.unet import UNet, UNetConfig

CONFIG = UNetConfig(32, [1, 2], blocks=1, attention=[4], groups=8)


def initialized(seed: int = 0, config: UNetConfig = CONFIG) -> UNet:
    network = config.build(3, 8)
    initialize(network, seed)
    return network


def parts(network: nn.Module):
    """(name, weight) of every weight matrix or kernel; of a layer that holds several, each one."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            rows = [len(module.weight)]
            if name.endswith("query_key_value"):
                rows = [len(module.weight) // 3] * 3
            if name == "time.shifts":
                rows = network.time.widths
            yield from ((f"{name}[{i}]", part) for i, part in enumerate(module.weight.detach().split(rows)))


def test_every_weight_is_uniform_with_the_variance_1_over_fan_avg_or_zero():
    zero = ("residual.conv_out", "attention.projection", "conv_out")
    for name, weight in parts(initialized()):
        if name.rpartition("[")[0].endswith(zero):
            assert torch.count_nonzero(weight) == 0, name
            continue
        field = weight[0, 0].numel()
        bound = (3 / ((weight.shape[1] + weight.shape[0]) * field / 2)) ** 0.5
        x = weight.flatten().double().numpy()
        # The variance of a uniform law is known to sqrt(0.8 / n) of itself.
        assert abs(x.var() / (bound**2 / 3) - 1) < 4.5 * (0.8 / x.size) ** 0.5, name
        assert stats.kstest(x, "uniform", (-bound, 2 * bound)).pvalue > 1e-5, name


def test_biases_start_at_zero_and_norms_as_the_identity():
    for name, module in initialized().named_modules():
        if getattr(module, "bias", None) is not None:
            assert torch.count_nonzero(module.bias) == 0, name
        if isinstance(module, nn.GroupNorm):
            assert bool((module.weight == 1).all()), name


def test_the_same_seed_gives_the_same_weights_whatever_torch_has_drawn():
    torch.manual_seed(0)
    one = initialized().state_dict()
    torch.manual_seed(1)
    other = initialized().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_seed_gives_other_weights():
    one, other = dict(parts(initialized(0))), dict(parts(initialized(1)))
    assert not any(torch.equal(one[name], other[name]) for name in one if torch.count_nonzero(one[name]))


def test_a_parameter_does_not_depend_on_the_order_in_which_parameters_come():
    layers = {"first": Linear(7, 5), "second": Conv2d(3, 4), "third": Linear(9, 2)}
    forward = nn.ModuleDict(layers)
    initialize(forward, seed=3)
    kept = {name: parameter.clone() for name, parameter in forward.named_parameters()}
    backward = nn.ModuleDict({name: layers[name] for name in reversed(layers)})
    initialize(backward, seed=3)
    alone = nn.ModuleDict({"second": Conv2d(3, 4)})
    initialize(alone, seed=3)
    assert all(torch.equal(parameter, kept[name]) for name, parameter in backward.named_parameters())
    assert torch.equal(alone["second"].weight, kept["second.weight"])


def test_parameters_of_different_names_are_independent():
    one, other = (keyed_uniform(0, name, 100_000, 0, 100_000).double() for name in ("a.weight", "b.weight"))
    assert stats.pearsonr(one, other).pvalue > 1e-4


@pytest.mark.parametrize("multipliers", [[1, 2, 2, 2], [1, 1, 2, 2, 4, 4]])
def test_no_two_parameters_of_a_network_share_their_noise(multipliers):
    with torch.device("meta"):
        network = UNetConfig(32, multipliers).build(3, 256)
    names = [name for name, _ in network.named_parameters()]
    assert len({zlib.crc32(name.encode()) for name in names}) == len(names)


def test_a_long_parameter_made_in_pieces_repeats_nothing():
    x = keyed_uniform(0, "a.weight", 10_000, 0, 10_000, piece=1024)
    assert x.shape == (10_000,)
    assert stats.kstest(x.numpy(), "uniform").pvalue > 1e-4
    pieces = x[: 9 * 1024].reshape(9, 1024)
    assert len({tuple(piece.tolist()) for piece in pieces}) == 9


def test_a_parameter_without_memory_is_refused():
    with torch.device("meta"):
        network = nn.ModuleDict({"layer": Linear(4, 4)})
    with pytest.raises(ValueError, match=r"layer\.weight is on the meta device"):
        initialize(network, seed=0)


def test_a_layer_that_does_not_say_how_it_starts_is_refused():
    with pytest.raises(ValueError, match=r"odd\.weight: its layer, Embedding, has no initial law"):
        initialize(nn.ModuleDict({"odd": nn.Embedding(4, 4)}), seed=0)


@pytest.mark.parametrize("kind", ["unet", "refinenet"])
def test_a_rank_makes_only_what_it_owns_and_makes_the_same(kind):
    """Any cut of any parameter, from a network without memory, is that cut of the whole."""
    from models.networks.refinenet import RefineNetConfig

    config = CONFIG if kind == "unet" else RefineNetConfig(channels=4)
    with torch.device("meta"):
        network = config.build(1, 8, steps=10)
    whole = config.build(1, 8, steps=10)
    initialize(whole, seed=5)
    for name, parameter in whole.named_parameters():
        count = parameter.numel()
        for start, stop in ((0, count), (count // 3, count // 2), (count, count)):
            assert torch.equal(initial(network, name, 5, start, stop), parameter.flatten()[start:stop]), name
