"""What changes during a run is a pure function of the images seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from trainer.schedules import Every, half_life, learning_rate


def test_warm_up_rises_in_a_line_from_0_and_then_stays():
    peak, images = 2e-4, 640_000  # the papers' 5000 steps of 128
    assert learning_rate(0, peak, images) == 0
    assert learning_rate(160_000, peak, images) == pytest.approx(peak / 4)
    assert learning_rate(640_000, peak, images) == learning_rate(10**9, peak, images) == peak


def test_without_warm_up_the_rate_is_constant():
    assert learning_rate(0, 0.1, 0) == learning_rate(10**6, 0.1, 0) == 0.1


def test_decay_follows_a_cosine_to_0_under_the_warm_up_and_stays_there():
    assert learning_rate(300, 0.4, 0, 900) == pytest.approx(0.3)  # cos(π/3) = 1/2
    assert learning_rate(450, 0.4, 0, 900) == pytest.approx(0.2)
    assert learning_rate(900, 0.4, 0, 900) == learning_rate(10**9, 0.4, 0, 900) == pytest.approx(0, abs=1e-16)
    assert learning_rate(300, 0.4, 600, 900) == pytest.approx(0.15)


@given(some.integers(1, 1000), some.integers(1, 300), some.integers(1, 200))
def test_every_multiple_is_due_once_whatever_the_batch(every, batch, batches):
    """Over a run, `due` is said exactly in the steps in which the count passes one or more multiples."""
    due = [seen for seen in range(batch, batch * batches + 1, batch) if Every(every).due(seen, batch)]
    crossing = [
        seen for seen in range(batch, batch * batches + 1, batch) if seen // every > (seen - batch) // every
    ]
    assert due == crossing


@given(some.integers(0, 10**9), some.integers(1, 10**4))
def test_every_0_is_never_due(seen, batch):
    assert not Every(0).due(seen, batch)


def test_the_half_life_of_the_papers_average():
    # 0.9999 a step of 128 images halves in ln 2 / 1.00005e-4 = 6931.1 steps.
    assert half_life(0.9999, 128) == pytest.approx(6931.1 * 128, rel=1e-5)
