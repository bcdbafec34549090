"""Guidance on classes whose denoisers are exact: what is drawn, by every sampler and parameterization."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from scipy import stats

from models.classes import NO_CLASS
from models.diffusion import Diffusion
from models.guidance import Guided, guided
from models.ladder import NoiseLadder
from models.langevin import AnnealedLangevin
from models.noise import Noise, Purpose
from models.parameterizations import Data, Epsilon, PosteriorMean, ScaledScore, Score, Variance, Velocity
from models.predictor_corrector import PredictorCorrector
from models.processes import GaussianProcess, PerturbationProcess
from models.samplers import Ancestral, Ddim
from models.schedules import Linear
from models.solvers import DpmSolver2M, Heun
from tests.oracles import GaussianData, Mixture

SHAPE, STEPS = (1, 8, 8), 100
PROCESS = GaussianProcess(Linear(STEPS, 0.001, 0.2))
CLASSES, FREE = (GaussianData(-0.5, 0.3), GaussianData(0.7, 0.3)), GaussianData(0.1, 0.3)


@dataclass(frozen=True)
class Known:
    """The optimal network for data whose law is known for each class, and for none of them.

    Its last law is that of `NO_CLASS`, as an index of -1 finds it. It says whatever the parameterization means.
    """

    process: PerturbationProcess
    parameterization: Epsilon
    laws: tuple[GaussianData | Mixture, ...]

    def __call__(self, x, t, condition):
        time, x = int(t[0]), x.double()
        signal, sigma = self.process.signal(time), self.process.sigma(time)
        length = (signal**2 + sigma**2).sqrt()
        x_0 = torch.cat(
            [
                self.laws[c].denoise(one[None] / length, (signal / length) ** 2)
                for one, c in zip(x, condition.tolist(), strict=True)
            ]
        )
        return self.parameterization.target(self.process, x_0, x, (x - signal * x_0) / sigma, t)


def model(meaning=Epsilon(), process: PerturbationProcess = PROCESS, laws=(*CLASSES, FREE)) -> Diffusion:  # noqa: B008
    return Diffusion(process, meaning, Known(process, meaning, laws))


MEANINGS = (Epsilon(), Data(), PosteriorMean(), Velocity(), Score(), ScaledScore())
ids = lambda value: type(value).__name__  # noqa: E731


@pytest.mark.parametrize("meaning", MEANINGS, ids=ids)
def test_the_guided_score_of_gaussians_alike_is_that_of_a_displaced_one(meaning):
    """∇ log N(m_c, s²)^(1+w) / N(m, s²)^w is the score of N(m_c + w (m_c - m), s²), at every t."""
    x = Noise(0, torch.arange(4)).normal(Purpose.PRIOR, SHAPE).double()
    condition = torch.tensor([0, 1, 1, 0])
    for weight in (0.5, 3.0):
        diffusion = guided(model(meaning), weight)
        for t in (1, 40, 100):
            a = float(PROCESS.alpha_bar(t))
            means = [CLASSES[c].mean + weight * (CLASSES[c].mean - FREE.mean) for c in condition.tolist()]
            mean = torch.tensor(means, dtype=torch.float64).reshape(4, 1, 1, 1)
            expected = (a**0.5 * mean - x) / (a * 0.3**2 + 1 - a)
            assert torch.allclose(diffusion.score(x, t, condition), expected, rtol=1e-6, atol=1e-8)


SAMPLERS = {
    "ancestral": (Ancestral(), PROCESS),
    "ddim": (Ddim(steps=20, eta=0.5), PROCESS),
    "heun": (Heun(), PROCESS),
    "dpm_solver_2m": (DpmSolver2M(), PROCESS),
    "predictor_corrector": (PredictorCorrector(steps=30), PROCESS),
    "predictor_corrector on the ladder": (PredictorCorrector(), NoiseLadder(10, 2.0, 0.05)),
    "annealed_langevin": (AnnealedLangevin(0.002, 5), NoiseLadder(10, 2.0, 0.05)),
}


@pytest.mark.parametrize("weight", [0.0, 1.5])
@pytest.mark.parametrize(("sampler", "process"), SAMPLERS.values(), ids=SAMPLERS)
def test_every_sampler_draws_of_gaussians_alike_what_it_draws_of_the_displaced_one(sampler, process, weight):
    """Which is N(m_c + w (m_c - m), s²): image by image, from the same noise. For w = 0, the class's own law."""
    meaning = Score() if isinstance(process, NoiseLadder) else Velocity()
    noise, condition = Noise(2, torch.arange(6)), torch.tensor([0, 1, 1, 0, 1, 0])
    found = sampler(guided(model(meaning, process), weight), SHAPE, noise, condition)
    displaced = [GaussianData(law.mean + weight * (law.mean - FREE.mean), law.std) for law in CLASSES]
    expected = sampler(model(meaning, process, laws=tuple(displaced)), SHAPE, noise, condition)
    assert float(expected[1].mean() - expected[0].mean()) > 0.5
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("asked", [0, 1, NO_CLASS])
def test_of_a_mixture_each_class_is_drawn_by_its_own_law_and_none_by_the_whole(asked):
    whole, process = Mixture((0.3, 0.7), (-0.5, 0.7), (0.3, 0.3)), GaussianProcess(Linear(400, 2.5e-4, 0.05))
    diffusion = model(Data(Variance.large), process, (*CLASSES, whole))
    x = Ancestral(clip=False)(diffusion, SHAPE, Noise(4, torch.arange(60)), torch.full((60,), asked))
    law = whole if asked == NO_CLASS else Mixture((1.0,), (CLASSES[asked].mean,), (0.3,))
    assert stats.kstest(x.double().flatten().numpy(), law.cdf).pvalue > 0.01


def test_guidance_draws_further_from_the_other_classes_than_the_class_itself_lies():
    means, laws = [], (*CLASSES, Mixture((0.5, 0.5), (-0.5, 0.7), (0.3, 0.3)))
    for weight in (0.0, 1.0, 4.0):
        diffusion = guided(model(laws=laws), weight)
        x = Ddim(steps=20)(diffusion, SHAPE, Noise(4, torch.arange(8)), torch.ones(8, dtype=torch.int64))
        means.append(float(x.mean()))
    assert means[0] < means[1] < means[2]


def test_no_weight_leaves_the_diffusion_as_it_is():
    diffusion = model()
    assert guided(diffusion, 0.0) is diffusion


def test_the_network_is_asked_once_and_its_width_of_the_reverse_law_is_the_classs():
    asked = []

    def network(x, t, condition):
        asked.append((x, t, condition))
        shift = condition.double().reshape(-1, 1, 1, 1)
        return torch.cat((x + shift, x * shift), dim=1)

    x, t = torch.rand(3, 2, 4, 4, dtype=torch.float64), torch.tensor([5, 6, 7])
    said = Guided(network, 2.0)(x, t, torch.tensor([0, 3, 1]))
    assert len(asked) == 1
    assert asked[0][2].tolist() == [0, 3, 1, NO_CLASS, NO_CLASS, NO_CLASS]
    c = torch.tensor([0.0, 3.0, 1.0]).double().reshape(3, 1, 1, 1)
    assert torch.allclose(said[:, :2], 3 * (x + c) - 2 * (x - 1))
    assert torch.allclose(said[:, 2:], x * c)


def test_guidance_without_a_class_is_refused():
    with pytest.raises(ValueError, match="it needs the class of each image, got none"):
        guided(model(), 1.0).score(torch.zeros(1, *SHAPE), 3)
