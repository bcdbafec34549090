"""Schedules: the numbers of the papers, and diffusers' tables."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as some

from models.processes import GaussianProcess
from models.schedules import (
    Constant,
    Cosine,
    Geometric,
    Learned,
    Linear,
    Quadratic,
    Reciprocal,
    Sigmoid,
    alpha_bar,
)

EVERY = [Linear, Quadratic, Sigmoid, Cosine, Constant, Reciprocal, Geometric, Learned]
RANGED = [Linear, Quadratic, Sigmoid]

# Measured in float64: t → alpha-bar_t for T = 1000, beta 1e-4 .. 0.02.
PUBLISHED = {
    Linear: {
        1: 0.9999,
        250: 0.5240853738254,
        500: 0.07858724288178,  # by exact rationals, see below
        750: 0.003350550438937,
        1000: 4.035829765376e-05,
    },
    Quadratic: {
        1: 0.9999,
        250: 0.8215213423020,
        500: 0.3331877673563,
        750: 0.03860551176353,
        1000: 7.334124595808e-04,
    },
    Sigmoid: {
        1: 0.9998507947992,
        250: 0.9037446654009,
        500: 0.3019310566022,
        750: 0.005732198886118,
        1000: 3.968181990533e-05,
    },
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_alpha_bar_is_the_published_number(kind):
    for t, number in PUBLISHED[kind].items():
        assert float(GaussianProcess(kind()).alpha_bar(t)) == pytest.approx(number, rel=2e-13), f"t = {t}"


def test_the_linear_schedule_is_right_to_the_last_digits_of_exact_rationals():
    first, last = Fraction(1, 10_000), Fraction(2, 100)
    exact = Fraction(1)
    for t in range(1, 501):
        exact *= 1 - (first + (last - first) * Fraction(t - 1, 999))
    assert float(GaussianProcess(Linear()).alpha_bar(500)) == pytest.approx(float(exact), rel=1e-14)


def test_the_posterior_variances_of_the_linear_schedule_are_the_published_numbers():
    process = GaussianProcess(Linear())
    variance = {t: float(process.posterior_coefficients(t, t - 1)[2]) ** 2 for t in (1, 2, 1000)}
    assert variance[1] == 0
    assert variance[2] == pytest.approx(5.4531876613021935e-05, rel=1e-12)
    assert variance[1000] == pytest.approx(0.01999998352656061, rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(Linear, "linear"), (Quadratic, "scaled_linear"), (Sigmoid, "sigmoid"), (Cosine, "squaredcos_cap_v2")],
)
def test_beta_and_alpha_bar_are_those_of_diffusers(ours, theirs):
    scheduler = DDPMScheduler(beta_schedule=theirs, beta_start=1e-4, beta_end=0.02)
    beta = ours().beta()
    # Theirs are float32: half a unit of the last place of beta, and T of them in the product.
    assert torch.allclose(beta, scheduler.betas.double(), rtol=1e-6, atol=5e-9)
    if ours is not Cosine:
        assert torch.allclose(alpha_bar(beta)[1:], scheduler.alphas_cumprod.double(), rtol=1e-6, atol=0)


def test_the_cosine_schedule_follows_its_closed_form_up_to_the_cap():
    def f(t: int) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    process = GaussianProcess(Cosine())
    for t in (1, 2, 250, 500, 750, 990):
        assert float(process.alpha_bar(t)) == pytest.approx(f(t) / f(0), rel=1e-9), f"t = {t}"
    assert float(Cosine().beta()[-1]) == 0.999


@given(some.integers(1, 3000))
def test_the_reciprocal_schedule_loses_an_equal_share_of_signal_each_step(steps):
    expected = 1 - torch.arange(steps + 1, dtype=torch.float64) / steps
    found = alpha_bar(Reciprocal(steps).beta())
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert found[-1] == 0


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_every_schedule_destroys_signal_step_by_step(kind, steps):
    beta = kind(steps).beta()
    table = alpha_bar(beta)
    assert beta.shape == (steps,)
    assert beta.dtype == table.dtype == torch.float64
    assert bool(((beta > 0) & (beta <= 1)).all())
    assert table[0] == 1
    assert bool((table.diff() < 0).all())


@pytest.mark.parametrize("schedule", [Geometric(40, 1e-6), Learned(40, 1e-6)])
def test_a_geometric_schedule_multiplies_noise_over_signal_by_one_factor_each_step(schedule):
    """From 1e-6 / (1 - 1e-6) to 40, which is where 1/41 of the signal is left, in 39 steps."""
    signal = alpha_bar(schedule.beta())[1:]
    odds = (1 - signal) / signal
    assert float(odds[0]) == pytest.approx(1e-6 / (1 - 1e-6), rel=1e-9)
    assert float(signal[-1]) == pytest.approx(1 / 41, rel=1e-12)
    assert (odds[1:] / odds[:-1]).tolist() == pytest.approx([(40 * (1e6 - 1)) ** (1 / 39)] * 39, rel=1e-8)


@pytest.mark.parametrize("kind", [Geometric, Learned])
@pytest.mark.parametrize("first", [0.0, 1.0])
def test_a_small_first_step_is_neither_none_nor_all(kind, first):
    with pytest.raises(ValueError, match=rf"schedule\.first must lie between 0 and 1, got {first}"):
        kind(40, first)


@pytest.mark.parametrize("kind", RANGED)
def test_a_ranged_schedule_keeps_its_ends(kind):
    beta = kind(100, first=0.01, last=0.3).beta()
    within = 0.003 * 0.29 if kind is Sigmoid else 1e-15  # a sigmoid over [-6, 6] stops 0.25 % short of either end
    assert float(beta[0]) == pytest.approx(0.01, abs=within)
    assert float(beta[-1]) == pytest.approx(0.3, abs=within)


def test_a_constant_schedule_decays_geometrically():
    assert torch.allclose(alpha_bar(Constant(50, value=0.1).beta()), 0.9 ** torch.arange(51).double(), rtol=1e-13)


@pytest.mark.parametrize("kind", EVERY)
def test_a_schedule_without_steps_is_refused(kind):
    with pytest.raises(ValueError, match=r"schedule\.steps must be at least 1, got 0"):
        kind(0)


@pytest.mark.parametrize("kind", RANGED)
@pytest.mark.parametrize(("name", "value"), [("first", 0.0), ("first", 1.5), ("last", -0.1), ("last", 2.0)])
def test_an_end_outside_0_to_1_is_refused_by_name(kind, name, value):
    with pytest.raises(ValueError, match=rf"schedule\.{name} .*{value}"):
        kind(10, **{name: value})


@pytest.mark.parametrize(
    "build",
    [
        lambda: Constant(10, 0.0),
        lambda: Constant(10, 1.1),
        lambda: Cosine(10, -0.1),
        lambda: Cosine(10, 0.008, 1.5),
    ],
)
def test_other_values_out_of_range_are_refused(build):
    with pytest.raises(ValueError, match="schedule"):
        build()


@pytest.mark.parametrize("kind", RANGED)
def test_rescaled_it_ends_in_as_much_noise_at_any_number_of_steps(kind):
    whole = float(alpha_bar(kind().beta())[-1])
    for steps in (250, 4000):
        assert math.log(float(alpha_bar(kind(steps, rescaled=True).beta())[-1])) == pytest.approx(
            math.log(whole), rel=0.05
        )
    beta = kind(500, rescaled=True).beta()
    if kind is Linear:
        torch.testing.assert_close(beta, torch.linspace(2e-4, 0.04, 500, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"schedule.last must lie in \(0, 1\], got 0.02 · 1000 / 10"):
        kind(10, rescaled=True)
