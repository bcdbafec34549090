"""DiscretizedGaussian: masses in fifty digits however far the mean lies, which sum to 1."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from scipy import stats

from models.distributions import HALF_BIN, Cdf, DiscretizedGaussian, Gaussian, log_central_mass

VALUES = torch.arange(256, dtype=torch.float64) / 127.5 - 1
# relative error of ln P in float64 and float32
PRECISION = [(torch.float64, 1e-11), (torch.float32, 2e-4)]
STDS = [3e-5, 1e-4, 7.4e-3, 0.01, 0.14, 1.0, 3.0]


def law(mean: float, std: float, dtype: torch.dtype = torch.float64, floor: float = 0.0) -> DiscretizedGaussian:
    return DiscretizedGaussian(torch.tensor(mean, dtype=dtype), torch.tensor(std, dtype=dtype), floor)


def log_mass(center: float, half: float) -> float:
    """ln(Phi(center + half) - Phi(center - half)), in enough digits that nothing is lost to cancellation."""
    with mpmath.workdps(60):
        c, h = mpmath.mpf(-abs(center)), mpmath.mpf(half)
        upper, lower = (mpmath.erfc(-z / mpmath.sqrt(2)) / 2 for z in (c + h, c - h))
        return float(mpmath.log(upper - lower))


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISION)
@pytest.mark.parametrize("half", [1e-3, 0.03, 0.39, 0.53, 4.0, 40.0])
def test_the_mass_between_two_points_is_that_of_sixty_digits(half, dtype, tolerance):
    for center in (0.0, 1e-3, 0.3, 0.53, 1.0, 3.9, 4.1, 9.0, 41.0, 300.0):
        c, h = torch.tensor(center, dtype=dtype), torch.tensor(half, dtype=dtype)
        for signed in (c, -c):
            found, expected = float(log_central_mass(signed, h)), log_mass(float(c), float(h))
            assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), (center, half)


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("mean", [-1.7, -1.0, -0.3, 0.0, 0.501, 1.0, 40.0])
def test_the_256_masses_sum_to_1(mean, std):
    assert float(law(mean, std).log_prob(VALUES).exp().sum()) == pytest.approx(1, abs=1e-12)
    # float32 knows neither the values nor the mean to more than 6e-8, which is as many stds.
    assert float(law(mean, std, torch.float32).log_prob(VALUES.float()).exp().sum()) == pytest.approx(
        1, abs=1e-5 + 1e-6 / std
    )


@pytest.mark.parametrize("std", [0.01, 0.14, 1.0])
def test_the_open_edges_are_scipys_tails(std):
    found = law(0.2, std).log_prob(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    normal = stats.norm(0.2, std)
    assert float(found[0]) == pytest.approx(normal.logcdf(-1 + 1 / 255), rel=1e-12)
    assert float(found[1]) == pytest.approx(normal.logsf(1 - 1 / 255), rel=1e-12)


def test_a_wide_law_has_the_density_times_the_width_of_a_bin():
    wide = Gaussian(torch.tensor(0.1, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64))
    inner = VALUES[1:-1]
    expected = wide.log_prob(inner) + math.log(2 * HALF_BIN)
    assert torch.allclose(law(0.1, 2.0).log_prob(inner), expected, rtol=0, atol=1e-6)


def test_a_floor_is_the_least_probability_and_zero_is_none():
    """At the scale of t = 1, one bin in three away is far out: 1e-12 and 1e-15 are 6.9 nats apart there."""
    far = torch.tensor(0.0, dtype=torch.float64)
    clamped = [float(law(0.5, 0.01, floor=floor).log_prob(far)) for floor in (1e-12, 1e-15)]
    assert clamped == pytest.approx([math.log(1e-12), math.log(1e-15)])
    assert float(law(0.5, 0.01).log_prob(far)) == pytest.approx(log_mass(50.0, 1 / 2.55), rel=1e-11)
    with pytest.raises(ValueError, match=r"floor must lie in \[0, 1\), got 1"):
        law(0.0, 1.0, floor=1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("std", [1e-3, 0.01, 1.0])
def test_gradients_are_finite_wherever_the_mean_lies_and_push_towards_the_value(std, dtype):
    mean = torch.tensor([-30.0, -1.0, 0.0, 0.3, 1.0, 30.0], dtype=dtype).requires_grad_()
    log_std = torch.full((6,), math.log(std), dtype=dtype, requires_grad=True)
    value = VALUES[100].to(dtype)
    DiscretizedGaussian(mean, log_std.exp()).log_prob(value).sum().backward()
    assert bool(mean.grad.isfinite().all())
    assert bool(log_std.grad.isfinite().all())
    far = mean.grad[(mean - value).abs() > 0.5]
    assert torch.equal(far.sign(), (value - mean)[(mean - value).abs() > 0.5].sign())


def test_gradients_are_those_of_finite_differences():
    mean = torch.tensor([-2.0, -0.21, -0.2, 0.4, 1.3], dtype=torch.float64, requires_grad=True)
    std = torch.tensor([0.02, 0.003, 0.5, 0.1, 0.2], dtype=torch.float64, requires_grad=True)
    for value in (-1.0, -0.2, 1.0):
        x = torch.tensor(value, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda m, s, x=x: DiscretizedGaussian(m, s).log_prob(x), (mean, std))


def official(value: float, mean: float, std: float, floor: float) -> float:
    """The official code's decoder, in sixty digits: 0.5 (1 + tanh(√(2/π) (z + 0.044715 z³)))."""

    def below(z):
        return (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3))) / 2

    with mpmath.workdps(60):
        upper, lower = (below((mpmath.mpf(value) - mean + side * mpmath.mpf(1) / 255) / std) for side in (1, -1))
        mass = upper if value < -0.999 else 1 - lower if value > 0.999 else upper - lower
        return float(mpmath.log(max(mass, mpmath.mpf(floor))))


@pytest.mark.parametrize("std", [0.01, 0.14, 1.0])
@pytest.mark.parametrize("value", [-1.0, -0.5, 1 / 255, 0.498039215686, 1.0])
def test_by_tanh_it_is_the_official_codes_decoder(value, std):
    for mean in (-0.9, 0.0, 0.5):
        decoder = DiscretizedGaussian(torch.tensor(mean).double(), torch.tensor(std).double(), 1e-12, Cdf.tanh)
        found = float(decoder.log_prob(torch.tensor(value, dtype=torch.float64)))
        assert found == pytest.approx(official(value, mean, std, 1e-12), rel=1e-3, abs=1e-9)


def test_tanh_is_nats_off_in_the_tails_and_needs_a_floor():
    law = [DiscretizedGaussian(torch.zeros(()).double(), torch.tensor(0.01).double(), 1e-12, cdf) for cdf in Cdf]
    exact, tanh = (each.log_prob(torch.tensor(12 / 255, dtype=torch.float64)) for each in law)
    assert 0.3 < float((exact - tanh).abs()) < 5
    with pytest.raises(ValueError, match="it needs a floor"):
        DiscretizedGaussian(torch.zeros(()), torch.ones(()), 0.0, Cdf.tanh)
