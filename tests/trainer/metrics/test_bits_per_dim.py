"""Bits for each dimension: the report of a bound that is known, and precision that float32 would not have."""

from __future__ import annotations

import math

import pytest
import torch

from models.diffusion import Diffusion
from models.likelihood import Bound, Likelihood
from models.noise import Noise
from models.parameterizations import Data
from models.processes import GaussianProcess
from models.schedules import Linear
from trainer.metrics.bits_per_dim import bits_per_dim, bound_of

BITS = math.log(2) * 12  # a bit for each dimension of an image (3, 2, 2), in nats


def test_the_report_of_a_known_bound():
    terms = torch.tensor([[2.0, 1.0, 0.5, 0.25, 0.0], [4.0, 1.0, 1.5, 0.25, 0.5]], dtype=torch.float64) * BITS
    errors = torch.tensor([[1.0, 4.0, 9.0, 16.0], [3.0, 4.0, 9.0, 16.0]], dtype=torch.float64) / 127.5**2
    found = bits_per_dim(Bound(terms, errors), (3, 2, 2))
    assert found["bits_per_dim"] == pytest.approx((3.75 + 7.25) / 2)
    assert found["standard_error"] == pytest.approx(1.75)
    assert found["prior"] == pytest.approx(0.25)
    assert found["rate"] == pytest.approx(2.5)
    assert found["distortion"] == pytest.approx(3)
    assert found["rmse"] == pytest.approx(2**0.5)
    assert found["terms"] == pytest.approx([3, 1, 1, 0.25, 0.25])
    rows = [(row["reverse_steps"], row["rate"], row["rmse"]) for row in found["rate_distortion"]]
    expected = [(4, 2.5, 2**0.5), (3, 1.5, 2.0), (2, 0.5, 3.0), (1, 0.25, 4.0)]
    assert rows == [pytest.approx(row) for row in expected]
    assert found["ledger"]["bits_per_dim"] == pytest.approx(5.5)
    assert found["ledger"]["bits_per_pixel"] == pytest.approx(-16.5)
    assert found["ledger"]["gain_bits"] == pytest.approx((8 - 5.5) * 12)


def test_the_rows_are_those_of_table_4():
    bound = Bound(torch.zeros(2, 1001), torch.zeros(2, 1000))
    rows = bits_per_dim(bound, (3, 2, 2))["rate_distortion"]
    assert [row["reverse_steps"] for row in rows] == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100]


def test_a_float32_network_leaves_the_terms_in_float64():
    """The divergence at t = 1000, some 1e-9 nats, to four digits: float32 would keep none of them."""
    images = torch.randint(256, (5, 1, 2, 2), generator=torch.Generator().manual_seed(0)).byte()
    process, seen = GaussianProcess(Linear(1000)), []

    def network(x, t, condition):
        seen.append(len(x))
        return torch.zeros_like(x, dtype=torch.float32)

    bound = bound_of(Diffusion(process, Data(), network), Likelihood(), images, Noise(0, torch.arange(5)), batch=3)
    assert bound.terms.dtype == torch.float64
    assert seen == [3] * 1000 + [2] * 1000
    x_0 = images.double() / 127.5 - 1
    a, before = (
        torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[i] for i in (999, 998)
    )
    beta = 1 - a / before
    ratio = (1 - before) / (1 - a)
    of_data = before.sqrt() * beta / (1 - a)
    expected = 0.5 * ((ratio - 1 - ratio.log()) * 4 + of_data**2 / beta * x_0.square().flatten(1).sum(1))
    assert torch.allclose(bound.terms[:, 999], expected, rtol=1e-4)


def test_a_network_of_classes_hears_the_class_of_each_image():
    """It answers with one gray for each class: the error of x̂_0 is the distance from that gray."""
    labels = torch.tensor([0, 3, 1, 2, 3])
    images = (51 * labels).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).byte()

    def network(x, t, classes):
        return (51 * classes.double() / 127.5 - 1).reshape(-1, 1, 1, 1).expand_as(x)

    diffusion, noise = Diffusion(GaussianProcess(Linear(5, 0.1, 0.5)), Data(), network), Noise(0, torch.arange(5))
    told = bound_of(diffusion, Likelihood(), images, noise, batch=2, labels=labels)
    wrong = bound_of(diffusion, Likelihood(), images, noise, batch=2, labels=(labels + 1) % 4)
    assert float(told.squared_error.max()) < 1e-9
    assert float(wrong.squared_error.min()) > 0.1
