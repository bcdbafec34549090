"""The ledger: the papers' own numbers, each from another unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from models.ledger import PIXELS, LogLikelihood, Unit, null_bernoulli, null_gaussian

LIKELIHOODS = some.tuples(
    some.floats(-1e4, 1e4), some.integers(1, 64), some.integers(1, 3), some.floats(1e-3, 1e2)
)


@pytest.mark.parametrize(
    ("value", "unit", "dimensions", "channels", "gain"),
    [
        (2.35, Unit.bits, 2, 1, 6.45),  # swiss roll
        (-0.55, Unit.bits_per_pixel, 1, 1, 1.5),  # bark
        (1.489, Unit.bits_per_pixel, 1, 1, 3.536),  # dead leaves
        (5.4, Unit.bits_per_pixel, 3, 3, 11.5),  # CIFAR-10
    ],
)
def test_table_1_of_dpm_is_reproduced(value, unit, dimensions, channels, gain):
    found = LogLikelihood.of(value, unit, dimensions, channels).gain(null_gaussian(dimensions))
    assert found == pytest.approx(gain, abs=0.06)


def test_the_heartbeat_row_of_dpm_is_reproduced():
    null = null_bernoulli(20, 0.2)
    assert null / math.log(2) == pytest.approx(-14.4386, abs=1e-4)
    assert LogLikelihood.of(-2.414, Unit.bits, 20).gain(null) == pytest.approx(12.024, abs=1e-3)


def test_the_null_of_a_gaussian_is_scipys_entropy():
    assert null_gaussian(1) == pytest.approx(-stats.norm.entropy(), rel=1e-12)
    assert null_gaussian(1) / math.log(2) == pytest.approx(-2.047095585180641, rel=1e-14)
    x = np.array([-0.5, 0.5, 0.5, -0.5])
    assert null_gaussian(4, 0.25) == pytest.approx(stats.norm.logpdf(x).sum(), rel=1e-12)


def test_a_density_of_standardised_pixels_becomes_bits_for_each_dimension_of_the_pixels():
    """x = (pixel - 120) / 64: the density of the pixel itself, by scipy, is what bits/dim are of."""
    pixel = np.array([100.0, 140.0, 133.0])
    nats = stats.norm.logpdf((pixel - 120) / 64).sum()
    expected = -stats.norm.logpdf(pixel, 120, 64).sum() / math.log(2) / 3
    assert LogLikelihood(nats, 3, 3, 1 / 64).stated_in(Unit.bits_per_dim) == pytest.approx(expected, rel=1e-12)


def test_the_row_of_dpm_in_the_table_of_ddpm_is_mostly_a_change_of_unit():
    """DDPM's "Diffusion (original) <= 5.40" is DPM's 5.4 bits a pixel; converted, about 4.20."""
    deviation = 64.7  # of CIFAR-10's pixels
    dpm = LogLikelihood.of(5.4, Unit.bits_per_pixel, 3072, 3, 1 / deviation)
    assert dpm.stated_in(Unit.bits_per_dim) == pytest.approx(4.20, abs=0.03)


def test_a_mass_has_no_jacobian_and_a_density_on_minus_1_to_1_has_7_bits_of_it():
    uniform_mass = LogLikelihood(-math.log(256) * 12, 12, 3)
    assert uniform_mass.stated_in(Unit.bits_per_dim) == pytest.approx(8)
    uniform_density = LogLikelihood(-math.log(256 / 127.5) * 12, 12, 3, PIXELS)
    assert uniform_density.stated_in(Unit.bits_per_dim) == pytest.approx(8)


@given(LIKELIHOODS)
def test_every_unit_leads_back(values):
    nats, pixels, channels, scale = values
    start = LogLikelihood(nats, pixels * channels, channels, scale)
    for unit in Unit:
        back = LogLikelihood.of(start.stated_in(unit), unit, pixels * channels, channels, scale)
        assert back.nats == pytest.approx(nats, rel=1e-9, abs=1e-6)


def test_a_row_has_every_unit_by_name():
    row = LogLikelihood(-6 * math.log(2), 6, 3).row(-12 * math.log(2))
    expected = {"nats": -6 * math.log(2), "bits": -6, "bits_per_pixel": -3, "bits_per_dim": 1, "gain_bits": 6}
    assert row == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LogLikelihood(0.0, 10, 3), "multiple of channels, got 10 dimensions in pixels of 3"),
        (lambda: LogLikelihood(0.0, 3, 3, 0.0), "scale must be finite and not 0, got 0"),
        (lambda: null_bernoulli(3, 1.0), r"rate must lie in \(0, 1\), got 1"),
    ],
)
def test_what_has_no_meaning_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
