"""Langevin dynamics: the papers' toy, exact laws of whole chains, and inpainting as exact conditioning."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from models.diffusion import Diffusion
from models.ladder import NoiseLadder, variance_ratio
from models.langevin import AnnealedLangevin, Known, Langevin, Step
from models.noise import Noise
from models.parameterizations import Epsilon, Score
from models.processes import GaussianProcess
from tests.oracles import PlaneMixture

# Song & Ermon 2019, section 3.2.2 and appendix B.1: ⅕ N((-5, -5), I) + ⅘ N((5, 5), I), 1280 chains from U[-8, 8]².
TOY = PlaneMixture((0.2, 0.8), ((-5.0, -5.0), (5.0, 5.0)), 1.0)
PAIR = (1, 1, 2)
CHAINS = Noise(0, torch.arange(1280))
BOX = [-8.0, 8.0]
STILL = NoiseLadder(1, 1e-8, 1e-8)  # one level with next to no noise: the score of the data itself


def score_model(data: PlaneMixture, ladder: NoiseLadder) -> Diffusion[NoiseLadder]:
    return Diffusion(ladder, Score(), lambda x, t, condition: data.score(x, float(ladder.sigma(int(t[0])))))


def share_of_the_right_mode(x: torch.Tensor) -> float:
    return float((x.flatten(1).sum(1) > 0).double().mean())


def test_annealed_dynamics_weigh_the_modes_right_and_plain_ones_do_not():
    annealed = AnnealedLangevin(0.1, 100, start=BOX)(score_model(TOY, NoiseLadder(10, 20.0, 1.0)), PAIR, CHAINS)
    plain = Langevin(0.1, 1000, start=BOX)(score_model(TOY, STILL), PAIR, CHAINS)
    assert 0.77 <= share_of_the_right_mode(annealed) <= 0.83
    assert 0.46 <= share_of_the_right_mode(plain) <= 0.54


def test_the_ladder_of_the_papers_section_4_3_diverges():
    """10 → .1 at epsilon = .1: a step of ten times the last level's variance."""
    x = AnnealedLangevin(0.1, 100, start=BOX)(score_model(TOY, NoiseLadder(10, 10.0, 0.1)), PAIR, CHAINS[:64])
    assert not bool(x.isfinite().all()) or float(x.abs().max()) > 100


def one_gaussian(ladder: NoiseLadder, mean: float, std: float) -> Diffusion[NoiseLadder]:
    def score(x, t, condition):
        return (mean - x) / (std**2 + float(ladder.sigma(int(t[0]))) ** 2)

    return Diffusion(ladder, Score(), score)


@pytest.mark.parametrize("denoise", [False, True])
@pytest.mark.parametrize("step", list(Step))
def test_the_law_of_a_chain_on_gaussian_data_is_the_closed_form(step, denoise):
    """Every step is affine, so the mean and the variance follow it exactly."""
    ladder, data_mean, data_std = NoiseLadder(6, 2.0, 0.2), 0.4, 0.5
    sampler = AnnealedLangevin(0.01, 7, step, start=[-1.0, 3.0], denoise=denoise)
    x = sampler(one_gaussian(ladder, data_mean, data_std), (1, 8, 8), Noise(1, torch.arange(600)))
    mean, variance = 1.0, 16 / 12
    for i in range(6):
        sigma = 2.0 * 0.1 ** (i / 5)
        alpha = 0.01 * sigma**2 / 0.2**2
        size, drawn = (alpha / 2, alpha) if step is Step.half else (alpha, 2 * alpha)
        slope = 1 - size / (data_std**2 + sigma**2)
        for _ in range(7):
            mean = data_mean + slope * (mean - data_mean)
            variance = slope**2 * variance + drawn
    if denoise:
        slope = data_std**2 / (data_std**2 + 0.2**2)
        mean, variance = data_mean + slope * (mean - data_mean), slope**2 * variance
    x = x.double().flatten()
    assert abs(float(x.mean()) - mean) < 4 * (variance / len(x)) ** 0.5
    assert abs(float(x.var()) / variance - 1) < 4 * (2 / len(x)) ** 0.5


def test_a_long_chain_at_one_level_has_the_law_of_that_level():
    ladder = NoiseLadder(3, 1.0, 0.1)
    for t in (1, 3):
        sampler = Langevin(0.02, 400, start=[-1.0, 1.0], t=t)
        x = sampler(one_gaussian(ladder, 0.4, 0.3), (1, 4, 4), Noise(2, torch.arange(100))).double().flatten()
        variance = 0.3**2 + float(ladder.sigma(t)) ** 2
        size = 0.01 / variance  # the law of the discrete chain, of which the continuous one is the limit
        assert stats.kstest(x.numpy(), "norm", (0.4, (variance / (1 - size / 2)) ** 0.5)).pvalue > 1e-4


def test_the_variance_ratio_of_the_ladder_is_that_of_the_sampler():
    """Song & Ermon 2020, Proposition 3, seen in chains: data at 0, one level's steps from the level above."""
    ladder, epsilon, steps = NoiseLadder(2, 1.5, 1.0), 0.1, 3
    drawn = []

    def score(x, t, condition):
        drawn.append(x)
        return -x / float(ladder.sigma(int(t[0]))) ** 2

    # The first level is walked until it has its own law; the second is then entered with it.
    AnnealedLangevin(epsilon, 40, Step.whole, start=[-1.0, 1.0])(
        Diffusion(ladder, Score(), score), (1, 8, 8), Noise(4, torch.arange(600))
    )
    entered = float(drawn[40].double().var())
    assert entered == pytest.approx(1.5**2 / (1 - epsilon / 2), rel=0.03)
    found = float(drawn[40 + steps].double().var())
    expected = variance_ratio(epsilon, steps, ladder)
    shift = (1 - epsilon) ** (2 * steps) * (entered - 1.5**2)  # the rule takes the level above as exact
    assert found == pytest.approx(expected + shift, rel=0.02)


@pytest.mark.parametrize("epsilon", [1e-6, 3e-3])
def test_a_whole_step_is_a_half_step_of_twice_the_size(epsilon):
    diffusion, noise = one_gaussian(NoiseLadder(3, 1.0, 0.1), 0.4, 0.3), Noise(0, torch.arange(2))
    for kind in (AnnealedLangevin, Langevin):
        whole = kind(epsilon, 3, Step.whole)(diffusion, PAIR, noise)
        half = kind(2 * epsilon, 3, Step.half)(diffusion, PAIR, noise)
        assert torch.allclose(whole, half, rtol=1e-6)


def test_the_levels_go_from_the_most_noise_to_the_least():
    seen = []
    diffusion = Diffusion(
        NoiseLadder(3), Score(), lambda x, t, condition: seen.append((t.tolist(), condition)) or -x
    )
    label = torch.tensor([1, 2])
    AnnealedLangevin(steps=2, denoise=True)(diffusion, PAIR, Noise(0, torch.arange(2)), label)
    assert [t for t, _ in seen] == [[t, t] for t in (3, 3, 2, 2, 1, 1, 1)]
    assert all(condition is label for _, condition in seen)


@pytest.mark.parametrize(
    ("sampler", "length"),
    [(AnnealedLangevin(0.01, 4), 12), (Langevin(0.01, 5, t=2), 5)],
    ids=["annealed", "plain"],
)
def test_the_walk_is_the_samplers_own_from_its_start_to_its_end(sampler, length):
    ladder, seen, noise = NoiseLadder(3, 1.0, 0.1), [], Noise(0, torch.arange(3))
    diffusion = Diffusion(ladder, Score(), lambda x, t, condition: seen.append(x) or -x)
    end = sampler(diffusion, PAIR, noise)
    walk = list(sampler.walk(diffusion, PAIR, noise))
    assert len(walk) == sampler.length(ladder) + 1 == length + 1
    assert all(torch.equal(x, asked) for x, asked in zip(walk[:-1], seen[:length], strict=True))
    assert torch.equal(walk[-1], end)


def test_it_starts_in_its_box_and_keeps_no_graph():
    weight, seen = torch.ones(1, requires_grad=True), []
    diffusion = Diffusion(NoiseLadder(2), Score(), lambda x, t, condition: seen.append(x) or weight * x)
    for sampler in (AnnealedLangevin(steps=1, start=[2.0, 5.0]), Langevin(steps=1, start=[2.0, 5.0])):
        seen.clear()
        assert not sampler(diffusion, (1, 8, 8), Noise(0, torch.arange(20))).requires_grad
        first = seen[0].flatten().double().numpy()
        assert stats.kstest(first, "uniform", (2, 3)).pvalue > 1e-4


@pytest.mark.parametrize(
    "sampler", [AnnealedLangevin(steps=2), AnnealedLangevin(steps=2, denoise=True), Langevin(steps=3)]
)
def test_image_i_is_the_same_bits_in_any_batch(sampler):
    diffusion = one_gaussian(NoiseLadder(3), 0.4, 0.3)
    whole = sampler(diffusion, PAIR, Noise(3, torch.arange(13)))
    for size in (1, 5):
        parts = [sampler(diffusion, PAIR, Noise(3, torch.arange(13))[i : i + size]) for i in range(0, 13, size)]
        assert torch.equal(torch.cat(parts), whole)


# A mixture whose second coordinate, given the first, has another law than alone, and two modes.
LEANING = PlaneMixture((0.3, 0.3, 0.4), ((-0.6, -0.9), (-0.6, 0.4), (0.6, 0.7)), 0.4)
FINE = NoiseLadder(8, 1.0, 0.05)


def inpainted(first: float, count: int = 1500, **settings: object) -> tuple[torch.Tensor, Known]:
    known = Known(torch.tensor([first, 99.0]).expand(count, *PAIR).clone(), torch.tensor([[[[True, False]]]]))
    sampler = AnnealedLangevin(0.004, 100, start=[-3.0, 3.0], **settings)
    return sampler.inpaint(score_model(LEANING, FINE), known, Noise(5, torch.arange(count))), known


@pytest.mark.parametrize("first", [-0.6, 0.2])
def test_what_is_inpainted_has_the_exact_conditional_law(first):
    x, _ = inpainted(first)
    found = x[:, 0, 0, 1].double().numpy()
    generator = torch.Generator().manual_seed(6)
    exact = LEANING.conditional_samples(first, 20_000, generator).numpy()
    exact = exact + 0.05 * torch.randn(len(exact), generator=generator).numpy()  # the last level's noise
    assert stats.ks_2samp(found, exact).pvalue > 1e-3
    alone = LEANING.samples(20_000, generator)[:, 1].numpy()  # the test can fail: the law without what is known
    assert stats.ks_2samp(found, alone).pvalue < 1e-6


def test_what_is_known_ends_with_the_last_levels_noise_or_without_any():
    x, known = inpainted(0.2, 400)
    off = (x - known.x)[:, 0, 0, 0].double().numpy()
    assert stats.kstest(off, "norm", (0, 0.05)).pvalue > 1e-4
    x, known = inpainted(0.2, 16, denoise=True)
    assert torch.equal(x[:, 0, 0, 0], known.x[:, 0, 0, 0])
    assert not bool((x[:, 0, 0, 1] == 99.0).any())


@pytest.mark.parametrize("shape", [(3, 2, 4, 4), (1, 2, 4, 4), (3, 1, 4, 4), (1, 1, 4, 4)])
def test_a_mask_may_be_one_for_all_images_or_channels(shape):
    mask = torch.rand(shape) > 0.5
    x = torch.full((3, 2, 4, 4), 7.0)
    out = AnnealedLangevin(steps=1, denoise=True).inpaint(
        one_gaussian(NoiseLadder(2), 0.0, 1.0), Known(x, mask), Noise(0, torch.arange(3))
    )
    assert torch.equal(out == 7.0, mask.expand(3, 2, 4, 4))


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (2, 2, 4, 4), (3, 3, 4, 4), (3, 2, 4, 5), (3, 2, 1, 1)])
def test_a_mask_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(
        ValueError, match=r"the mask must be \[B or 1, C or 1, H, W\] for images \[3, 2, 4, 4\], got"
    ):
        Known(torch.zeros(3, 2, 4, 4), torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("sampler", [AnnealedLangevin(), Langevin()])
def test_a_process_without_a_ladder_is_refused(sampler):
    diffusion = Diffusion(GaussianProcess(), Epsilon(), lambda x, t, condition: x)
    with pytest.raises(ValueError, match=r"sampler=(annealed_)?langevin needs a NoiseLadder.*GaussianProcess"):
        sampler(diffusion, PAIR, Noise(0, torch.arange(1)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epsilon": 0.0}, r"sampler\.epsilon must be positive, got 0\.0"),
        ({"epsilon": math.nan}, r"sampler\.epsilon must be positive, got nan"),
        ({"steps": 0}, r"sampler\.steps must be at least 1, got 0"),
        ({"start": [1.0, 0.0]}, r"sampler\.start must be two numbers, the smaller first, got \[1\.0, 0\.0\]"),
        ({"start": [0.0]}, r"sampler\.start must be two numbers"),
    ],
)
@pytest.mark.parametrize("kind", [AnnealedLangevin, Langevin])
def test_values_out_of_range_are_refused_by_name(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_a_level_that_is_not_on_the_ladder_is_refused():
    with pytest.raises(ValueError, match=r"sampler\.t must be at least 1, got 0"):
        Langevin(t=0)
    diffusion = one_gaussian(NoiseLadder(3), 0.0, 1.0)
    with pytest.raises(ValueError, match=r"sampler\.t must be at most process\.levels = 3, got 4"):
        Langevin(t=4)(diffusion, PAIR, Noise(0, torch.arange(1)))
