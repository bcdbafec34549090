"""Dropout: drops what it says, keeps the mean, and passes the gradient of what it kept."""

from __future__ import annotations

import pytest
import torch

from models.networks.layers import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(7, 11, 13, 101), (100_003,)])
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


def test_elements_are_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(1 << 20)) != 0).double() * 2 - 1
    for distance in (1, 2, 3, 4, 64):
        assert abs((kept[:-distance] * kept[distance:]).mean().item()) < 5 / 1024


def test_it_is_a_function_of_torchs_seed():
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(Dropout(0.5)(torch.ones(1000)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_evaluating_or_with_p_0_it_is_the_identity():
    x = torch.randn(100)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
