"""The predictor-corrector sampler: exact laws on data whose score is known, and the steps of others' code."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import ScoreSdeVeScheduler
from scipy import stats

from models.diffusion import Diffusion
from models.ladder import NoiseLadder
from models.noise import Noise, Purpose
from models.parameterizations import Data, Epsilon, Score, Variance
from models.predictor_corrector import Predictor, PredictorCorrector
from models.processes import BinomialProcess, GaussianProcess
from models.samplers import Ancestral
from models.schedules import Linear
from tests.oracles import GaussianData, Mixture, linear_alpha_bar

SHAPE = (1, 16, 16)
MIXTURE = Mixture((0.4, 0.6), (-0.6, 0.7), (0.15, 0.2))
BETA = (0.001, 0.2)  # over 100 steps: alpha-bar_T is 2e-5


def on_the_chain(data: Mixture | GaussianData, steps: int = 100) -> Diffusion:
    return Diffusion(
        GaussianProcess(Linear(steps, *BETA)), Data(), data.data_network(linear_alpha_bar(steps, *BETA))
    )


def on_the_ladder(data: Mixture | GaussianData, levels: int, largest: float = 20.0) -> Diffusion[NoiseLadder]:
    """x / sqrt(1 + sigma²) has the law of a chain at alpha-bar = 1 / (1 + sigma²), whose denoiser is exact."""
    ladder = NoiseLadder(levels, largest, 0.01)

    def score(x, t, condition):
        a = 1 / (1 + ladder.sigma(int(t[0])) ** 2)
        return (data.denoise(x * a.sqrt(), a) - x.double()) * a / (1 - a)

    return Diffusion(ladder, Score(), score)


def drawn(sampler: PredictorCorrector, diffusion: Diffusion, count: int = 40) -> torch.Tensor:
    return sampler(diffusion, SHAPE, Noise(3, torch.arange(count)))


@pytest.mark.parametrize("steps", [0, 7])
def test_without_corrections_it_is_ancestral_sampling_with_the_small_variance(steps):
    network = MIXTURE.epsilon_network(linear_alpha_bar(100, *BETA))
    diffusion = Diffusion(GaussianProcess(Linear(100, *BETA)), Epsilon(Variance.small), network)
    expected = drawn(Ancestral(steps=steps), diffusion, count=3)
    assert torch.allclose(
        drawn(PredictorCorrector(steps=steps, corrections=0), diffusion, count=3), expected, atol=1e-5
    )


@pytest.mark.parametrize("steps", [9, 4])
@pytest.mark.parametrize("predictor", list(Predictor))
def test_the_law_of_the_predictor_on_gaussian_data_is_the_closed_form(predictor, steps):
    """Their Eq. 46 and 47 on the ladder: every step is affine, so the mean and the variance follow it exactly."""
    data, sigma = GaussianData(0.4, 0.5), np.concatenate(([0.0], np.geomspace(0.01, 5.0, 9)))
    sampler = PredictorCorrector(steps=steps, clip=False, predictor=predictor, corrections=0)
    x = drawn(sampler, on_the_ladder(data, 9, largest=5.0), count=200).double().flatten()
    mean, variance = 0.0, 25.0
    times = [9 * i // steps for i in range(steps, -1, -1)]
    for t, s in pairwise(times):
        added = sigma[t] ** 2 - sigma[s] ** 2
        slope = 1 - added / (data.std**2 + sigma[t] ** 2)
        of_noise = added if predictor is Predictor.reverse_diffusion else sigma[s] ** 2 * added / sigma[t] ** 2
        mean, variance = data.mean + slope * (mean - data.mean), slope**2 * variance + (of_noise if s else 0)
    assert abs(float(x.mean()) - mean) < 4 * (variance / len(x)) ** 0.5
    assert abs(float(x.var()) / variance - 1) < 4 * (2 / len(x)) ** 0.5


def test_on_a_chain_the_reverse_diffusion_step_is_that_of_algorithm_3():
    diffusion, noise = on_the_chain(MIXTURE), Noise(0, torch.arange(2))
    process, x = diffusion.process, noise.normal(Purpose.PRIOR, SHAPE).double()
    beta, score = np.linspace(*BETA, 100)[69], diffusion.score(x, 70)
    sampler = PredictorCorrector(predictor=Predictor.reverse_diffusion)
    law = sampler.predicted(process, x, diffusion.x_0(x, 70), 70, 69)
    assert torch.allclose(law.mean, (2 - (1 - beta) ** 0.5) * x + beta * score, rtol=0, atol=1e-10)
    assert float(law.std) == pytest.approx(beta**0.5)


def test_a_correction_is_that_of_diffusers(monkeypatch):
    """Algorithm 4. Theirs takes the mean over a batch, so it is given one image at a time."""
    theirs, ladder = ScoreSdeVeScheduler(snr=0.16), NoiseLadder(5, 2.0, 0.1)
    theirs.set_sigmas(5)
    x, score, z = (Noise(7, torch.arange(3)).normal(purpose, SHAPE) for purpose in list(Purpose)[:3])
    found = PredictorCorrector(ratio=0.16).corrected(ladder, x, 3 * score, z, 4)
    for i in range(3):
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_sde_ve.randn_tensor", lambda *args, i=i, **kwargs: z[i : i + 1]
        )
        expected = theirs.step_correct(3 * score[i : i + 1], x[i : i + 1]).prev_sample
        assert torch.allclose(found[i : i + 1], expected, rtol=1e-5, atol=1e-6)


def test_on_a_chain_a_correction_is_smaller_by_1_minus_beta():
    """Algorithm 5: the step's size is alpha_t times that of Algorithm 4."""
    x, score = torch.zeros(1, *SHAPE).double(), torch.ones(1, *SHAPE).double()
    still = torch.zeros_like(x)
    still[0, 0, 0, 0] = 16.0  # as long as the score, and nothing in the other elements
    process, sampler = GaussianProcess(Linear(100, *BETA)), PredictorCorrector(ratio=0.3)
    moved = sampler.corrected(process, x, score, still, 50)[0, 0, 1, 1]
    assert float(moved) == pytest.approx(2 * (1 - np.linspace(*BETA, 100)[49]) * 0.3**2)


def distance(sampler: PredictorCorrector, diffusion: Diffusion) -> tuple[float, float]:
    """Kolmogorov and Smirnov's distance of the samples' law from the data's, and its p-value."""
    found = stats.kstest(drawn(sampler, diffusion).double().flatten().numpy(), MIXTURE.cdf)
    return found.statistic, found.pvalue


@pytest.mark.parametrize("predictor", list(Predictor))
def test_a_whole_chain_has_the_law_of_the_data(predictor):
    sampler = PredictorCorrector(clip=False, predictor=predictor, corrections=2)
    assert distance(sampler, on_the_ladder(MIXTURE, 100))[1] > 0.01
    assert distance(sampler, on_the_chain(MIXTURE))[1] > 0.01


@pytest.mark.parametrize("predictor", list(Predictor))
def test_corrections_mend_what_too_few_steps_get_wrong(predictor):
    few = [PredictorCorrector(clip=False, predictor=predictor, corrections=count) for count in (0, 1, 2)]
    none, one, two = (distance(sampler, on_the_ladder(MIXTURE, 20))[0] for sampler in few)
    assert none > 1.2 * one > 1.2 * two
    few = [PredictorCorrector(20, False, predictor, corrections=count) for count in (0, 2)]
    none, two = (distance(sampler, on_the_chain(MIXTURE))[0] for sampler in few)
    assert none > 1.1 * two


def test_an_image_is_a_function_of_its_number_alone():
    diffusion, sampler = on_the_ladder(MIXTURE, 10), PredictorCorrector()
    whole = drawn(sampler, diffusion, count=5)
    alone = sampler(diffusion, SHAPE, Noise(3, torch.tensor([3])))
    assert torch.allclose(alone[0], whole[3], atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"corrections": -1}, "sampler.corrections must be at least 0, got -1"),
        ({"ratio": 0.0}, "sampler.ratio must be positive, got 0"),
        ({"steps": -1}, "sampler.steps must be at least 0"),
    ],
)
def test_bad_fields_are_named(fields, said):
    with pytest.raises(ValueError, match=said):
        PredictorCorrector(**fields)


def test_a_process_without_a_score_is_refused():
    with pytest.raises(ValueError, match="sampler=PredictorCorrector needs a PerturbationProcess"):
        PredictorCorrector().check(BinomialProcess(), "sampler")
    with pytest.raises(ValueError, match=r"sampler\.steps must be at most process\.steps=10, got 11"):
        PredictorCorrector(11).check(NoiseLadder(), "sampler")
