"""Dropout: drops what it says, keeps the mean, and passes the gradient of what it kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.networks.dropout import Dropout, dropped, key_dropout, on_accelerator
from models.noise import Noise


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(7, 11, 13, 101), (1, 100_003)])
def test_it_drops_a_share_p_and_scales_the_rest(p, shape):
    torch.manual_seed(0)
    x = torch.ones(shape, requires_grad=True)
    y = Dropout(p)(x)
    dropped = (y == 0).double().mean().item()
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(dropped - p) < 4 * deviation + 2**-16
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - p)), rtol=1e-4)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_elements_are_dropped_independently_within_a_sample_and_between_samples_and_layers():
    layers = nn.Sequential(Dropout(0.5), Dropout(0.5)).train()
    key_dropout(layers, Noise(3, torch.arange(4)))
    first, second = ((layer(torch.ones(4, 1 << 18)) != 0).double() * 2 - 1 for layer in layers)
    for distance in (1, 2, 3, 4, 64):
        assert abs((first[:, :-distance] * first[:, distance:]).mean().item()) < 5 / 1024
    assert abs((first[:-1] * first[1:]).mean().item()) < 5 / 1024
    assert abs((first * second).mean().item()) < 5 / 1024


@pytest.mark.parametrize("shape", [(3,), (5, 3, 7)])
def test_a_sample_drops_the_same_in_any_batch_and_order(shape):
    """So a run does not depend on how many ranks and micro-batches its batches are cut into."""
    layer, x = Dropout(0.3), torch.ones(6, *shape)
    index = torch.tensor([0, 5, 1 << 40, (1 << 56) - 1, 17, 9])
    key_dropout(layer, Noise(2**64 - 1, index))
    whole = layer(x)
    for rows in ([0], [3, 1], [5, 4, 3, 2, 1, 0]):
        key_dropout(layer, Noise(2**64 - 1, index[rows]))
        assert torch.equal(layer(x[: len(rows)]), whole[rows])
    key_dropout(layer, Noise(2**64 - 2, index))
    assert not torch.equal(layer(x), whole)


def test_the_words_are_those_of_numpys_philox():
    seed, layer, sample = 7, 2, 12345
    words = np.random.Philox(key=seed | 17 << 64, counter=sample << 128 | layer << 64).random_raw(5)
    lanes = words.view(np.int16)[:19]
    drop = dropped(torch.tensor([1, sample]), seed, layer, 2**14, [2, 19])
    assert drop[1].tolist() == (lanes < 2**14 - 2**15).tolist()


def test_the_operator_is_one_that_compilers_can_take():
    torch.library.opcheck(dropped, (torch.arange(3), -5, 1, 2**14, [3, 2, 5]))


def test_on_an_accelerator_each_sample_has_its_key():
    """Its kernel runs on CUDA alone; without one, the shapes are checked."""
    drop = on_accelerator(Noise(1, torch.arange(4, device="meta")), 0, 2**14, 10)
    assert (drop.shape, drop.dtype) == ((4, 10), torch.bool)


def test_without_a_key_it_is_a_function_of_torchs_seed():
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(Dropout(0.5)(torch.ones(1, 1000)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_evaluating_or_with_p_0_it_is_the_identity():
    x = torch.randn(100)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
