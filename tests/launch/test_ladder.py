"""The door of NCSNv2's choices, against numpy and scipy on the digits themselves; and the run that they make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from scipy import optimize, spatial, stats

from configs.runs import to_value
from configs.schema import register
from data_pipeline.sources import Digits
from models.ladder import NoiseLadder
from models.langevin import Step
from tests.launch.doors import opened

DIGITS = ("resolution=8", "channels=1", "count=200")


def ladder(shards: Path, *more: str) -> dict:
    text = opened("ladder", f"shards={shards}", *DIGITS, *more)
    return json.loads(text.strip().splitlines()[-1])


def distance(scale: float) -> float:
    """The largest between two of the first 200 held-out digits."""
    pixels = Digits("test")._images[:200].reshape(200, -1)
    return spatial.distance.pdist(pixels.astype(np.float64) / scale).max()


def overlap(ratio: float) -> float:
    offset = np.sqrt(2 * 64) * (ratio - 1)
    return stats.norm.cdf(offset + 3 * ratio) - stats.norm.cdf(offset - 3 * ratio)


def variance(epsilon: float, sigmas: np.ndarray, steps: int) -> float:
    """Of data at one point, after the steps at the last level but one, over its sigma²; sigmas fall."""
    before, sigma = sigmas[-3:-1]
    alpha, arrived = epsilon * sigma**2 / sigmas[-1] ** 2, before**2
    for _ in range(steps):
        arrived = (1 - alpha / sigma**2) ** 2 * arrived + 2 * alpha
    return arrived / sigma**2


@pytest.fixture(scope="module")
def found(digits) -> dict:
    return ladder(digits / "test", "steps=3", "smallest=0.02")


def test_sigma_1_is_the_largest_distance_in_the_range_of_the_pixels(found, digits):
    assert found["images"] == 200
    assert found["sigma_1"] == pytest.approx(distance(255), rel=1e-6)
    signed = ladder(digits / "test", "pixels.mean=127.5", "pixels.deviation=127.5")
    assert signed["sigma_1"] == pytest.approx(distance(127.5), rel=1e-6)


def test_L_is_the_least_whose_neighbours_overlap_by_half(found, digits):
    span = distance(255) / 0.02
    ratios = {levels: span ** (1 / (levels - 1)) for levels in range(2, 1000)}
    expected = next(levels for levels, ratio in ratios.items() if overlap(ratio) >= 0.5)
    assert found["L"] == expected
    assert found["ratio"] == pytest.approx(ratios[expected], rel=1e-6)
    assert found["overlap"] == pytest.approx(overlap(ratios[expected]), rel=1e-6)
    closer = ladder(digits / "test", "smallest=0.02", "least_overlap=0.8")
    assert closer["L"] == next(levels for levels, ratio in ratios.items() if overlap(ratio) >= 0.8)


def test_epsilon_brings_the_variance_of_the_steps_nearest_to_that_of_the_level(found):
    sigmas = np.geomspace(distance(255), 0.02, found["L"])
    best = optimize.minimize_scalar(
        lambda epsilon: (variance(epsilon, sigmas, 3) - 1) ** 2,
        bounds=(1e-7, 4e-4),
        method="bounded",
        options={"xatol": 1e-12},
    )
    assert found["epsilon"] == pytest.approx(best.x, rel=1e-3)
    assert found["variance_ratio"] == pytest.approx(variance(best.x, sigmas, 3), abs=1e-3)


@pytest.mark.parametrize("experiment", ["ncsn_cifar10", "ncsnv2_cifar10"])
def test_its_overrides_are_the_ladder_and_the_dynamics_of_a_run(found, experiment):
    register()
    with initialize_config_module("configs", version_base="1.3"):
        run = to_value(compose("train", [f"experiment={experiment}", *found["overrides"]]))
    assert run.process == NoiseLadder(found["L"], found["sigma_1"], 0.02)
    assert run.process.gamma == pytest.approx(found["ratio"])
    for sampler in (run.sampler, run.preview.sampler):
        assert (sampler.epsilon, sampler.steps, sampler.step) == (found["epsilon"], 3, Step.whole)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["count=1"], "got smallest=0.01 and largest=0.0"),
        (["count=400"], "count must be at most 355"),
        (["steps=0"], "steps must be at least 1, got 0"),
        (["least_overlap=1"], "least_overlap must lie in (0, 0.99], got 1.0"),
    ],
)
def test_what_gives_no_ladder_is_named(digits, arguments, said):
    assert said in opened("ladder", f"shards={digits}/test", *DIGITS, *arguments, status=1)
