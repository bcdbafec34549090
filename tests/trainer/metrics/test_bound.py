"""K of images: what an untrained chain must score exactly, and what is refused before anything is computed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from data_pipeline.config import DataConfig
from data_pipeline.sources import Digits
from data_pipeline.synthetic import Heartbeat
from data_pipeline.write import write_shards
from models.networks.dense import MlpConfig
from models.networks.initialization import initialize
from models.networks.multiscale import MultiScaleConfig
from models.objectives import LowerBound
from models.pixels import PixelRange
from models.processes import BinomialProcess, GaussianProcess
from models.reverse import FlipProbability, GaussianKernel
from models.samplers import Ancestral
from models.schedules import Reciprocal
from trainer.metrics.bits_per_dim import first_images
from trainer.metrics.bound import HELD_OUT, evaluate_bound, is_scored_by_bound, unseen
from trainer.run import PreviewConfig, Run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("digits")
    write_shards(Digits("test"), out)
    return str(out)


def run_on(digits: str, pixels: PixelRange) -> Run:
    return Run(
        data=DataConfig(digits, resolution=8, channels=1),
        pixels=pixels,
        process=GaussianProcess(Reciprocal(steps=12)),
        parameterization=GaussianKernel(),
        objective=LowerBound(),
        network=MultiScaleConfig(layers=1, channels=4, scales=2, dense=[], pixelwise=[4]),
        sampler=Ancestral(),
        preview=PreviewConfig(every=0),
    )


def moments(digits: str) -> PixelRange:
    """Those of the digits' dequantised bytes: the noise has the variance 1/12."""
    images = first_images(DataConfig(digits, resolution=8, channels=1), digits, 0).double()
    variance = float(images.var(correction=0)) + 1 / 12
    return PixelRange(float(images.mean()), math.sqrt(variance), dequantised=True)


def score(run: Run, digits: str, count: int = 0, any_moments: bool = False) -> dict[str, object]:
    network = run.build_network()
    initialize(network, 0)
    return evaluate_bound(
        run, run.diffusion(network), CPU, unseen(run, digits, count), 100, any_moments=any_moments
    )


def test_a_chain_that_has_learned_nothing_has_the_entropy_of_a_gaussian_of_the_pixels_deviation(digits):
    """Its kernels are the forward ones, under which every path has the weight of N(0, I): K = L_null."""
    pixels = moments(digits)
    found = score(run_on(digits, pixels), digits)
    ledger = found["ledger"]
    gaussian = math.log2(2 * math.pi * math.e) / 2
    assert found["images"] == 355
    assert found["K_minus_null"] / 64 == pytest.approx(0, abs=0.01)
    assert ledger["gain_bits"] == pytest.approx(found["K_minus_null"])
    assert ledger["bits"] == pytest.approx(found["K"])
    assert ledger["bits_per_pixel"] == pytest.approx(-gaussian, abs=0.02)
    assert ledger["bits_per_dim"] == pytest.approx(gaussian + math.log2(pixels.deviation), abs=0.02)


def test_a_vector_is_one_pixel_without_a_jacobian():
    run = Run(
        data=Heartbeat(),
        process=BinomialProcess(Reciprocal(steps=5), rate=0.2),
        parameterization=FlipProbability(),
        objective=LowerBound(),
        network=MlpConfig(),
        preview=PreviewConfig(every=0),
    )
    found = score(run, "", count=50)
    assert found["ledger"]["bits_per_pixel"] == pytest.approx(found["K"])
    assert found["ledger"]["bits_per_dim"] == pytest.approx(-found["K"] / 20)


def test_held_out_images_have_noise_that_no_training_image_has(digits):
    run = run_on(digits, moments(digits))
    x, positions = unseen(run, digits, 5)
    assert positions.tolist() == [HELD_OUT + number for number in range(5)]
    assert torch.equal(unseen(run, digits, 3)[0], x[:3])


def test_what_is_no_bound_is_refused(digits):
    fine = moments(digits)
    for pixels, said in (
        (replace(fine, dequantised=False), "it needs a run with pixels.dequantised=true"),
        (replace(fine, deviation=2 * fine.deviation), r"images by the pixels\.mean and pixels\.deviation"),
        (replace(fine, mean=0.0), r"images by the pixels\.mean and pixels\.deviation"),
    ):
        with pytest.raises(ValueError, match=said):
            score(run_on(digits, pixels), digits)
    with pytest.raises(ValueError, match="held_out must be given"):
        score(run_on(digits, fine), "")


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_data_of_other_moments_has_the_bound_that_holds_for_any_and_no_k(digits, scale):
    """Of a chain that has learned nothing it is L_null itself, a Gaussian's likelihood of the pixels."""
    pixels = moments(digits)
    pixels = replace(pixels, deviation=scale * pixels.deviation)
    run = run_on(digits, pixels)
    found = score(run, digits, any_moments=True)
    x, _ = unseen(run, digits, 0)
    null = -(x.double().square().mean() + math.log(2 * math.pi)) / 2 / math.log(2) * 64
    assert found["K"] is None
    assert found["K_for_any_moments"] == pytest.approx(float(null), abs=0.3)
    assert found["K_minus_null"] == pytest.approx(0, abs=0.3)
    assert found["ledger"]["bits"] == pytest.approx(found["K_for_any_moments"])
    assert found["K_per_element"] == pytest.approx(found["K_for_any_moments"] / 64)


def test_data_of_the_priors_moments_has_one_bound_in_both_forms(digits):
    run = run_on(digits, moments(digits))
    k, holding = score(run, digits), score(run, digits, any_moments=True)
    assert holding["K_for_any_moments"] == k["K_for_any_moments"] == pytest.approx(k["K"], abs=0.5)
    assert holding["K"] is None


def test_it_is_k_that_is_said_of_drawn_data_and_of_what_was_trained_on_it(digits):
    run = run_on(digits, moments(digits))
    assert is_scored_by_bound(run)
    assert is_scored_by_bound(replace(Run(), data=Heartbeat()))
    assert not is_scored_by_bound(Run())
