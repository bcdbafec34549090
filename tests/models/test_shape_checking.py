"""The shape annotations of `models` are enforced while the tests run."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from models.networks.layers import sinusoids
from models.processes import GaussianProcess


def test_a_wrong_number_of_axes_is_refused():
    with pytest.raises(TypeCheckError):
        GaussianProcess().marginal(torch.zeros(2, 3), 1)


def test_a_wrong_element_type_is_refused():
    with pytest.raises(TypeCheckError):
        sinusoids(torch.zeros(2), 8)


def test_two_axes_of_one_name_must_agree():
    with pytest.raises(TypeCheckError):
        GaussianProcess().posterior(torch.zeros(2, 1, 4, 4), torch.zeros(3, 1, 4, 4), 2, 1)
