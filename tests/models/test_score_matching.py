"""Score matching: the five objectives agree where the papers say they must, and their optimum is the score."""

from __future__ import annotations

import pytest
import torch

from models.diffusion import Diffusion
from models.ladder import NoiseLadder
from models.noise import Noise
from models.objectives import SimpleLoss
from models.parameterizations import ScaledScore, Score
from models.score_matching import (
    DenoisingScoreMatching,
    ImplicitScoreMatching,
    Projection,
    SlicedScoreMatching,
)

SHAPE, SIZE, SIGMA = (1, 2, 2), 4, 0.5
ONE_LEVEL = NoiseLadder(1, SIGMA, SIGMA)
SLICED = [SlicedScoreMatching(0.0, law, 1, reduced) for law in Projection for reduced in (True, False)]
DENOISING, IMPLICIT = DenoisingScoreMatching(0.0), ImplicitScoreMatching(0.0)


def precision() -> torch.Tensor:
    """Λ, a precision matrix whose pixels are correlated, of a law that can be the noised data's."""
    root = torch.randn(SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    covariance = root @ root.T + (SIGMA**2 + 0.2) * torch.eye(SIZE, dtype=torch.float64)
    return torch.linalg.inv(covariance)


def data(count: int, seed: int = 0) -> torch.Tensor:
    """x_0 such that x_t = x_0 + sigma eps is N(0, Λ^-1)."""
    covariance = torch.linalg.inv(precision()) - SIGMA**2 * torch.eye(SIZE, dtype=torch.float64)
    root = torch.linalg.cholesky(covariance)
    z = torch.randn(count, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (z @ root.T).reshape(count, *SHAPE)


def linear(x: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
    """s = -Λ x."""
    return -(x.flatten(1) @ precision()).reshape(x.shape)


def curved(x: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
    """A score that is not linear, nor the gradient of anything."""
    flat = x.flatten(1)
    return (torch.tanh(flat @ torch.arange(16.0, dtype=x.dtype).reshape(4, 4) / 9) * flat.roll(1, 1)).reshape(
        x.shape
    )


def loss_of(objective, network, x_0: torch.Tensor, process=ONE_LEVEL, seed: int = 0) -> torch.Tensor:
    diffusion = Diffusion(process, Score(), network)
    return objective(diffusion, x_0, Noise(seed, torch.arange(len(x_0)))).loss.detach()


@pytest.mark.parametrize("objective", [DENOISING, IMPLICIT, *SLICED], ids=repr)
def test_all_agree_on_a_linear_score(objective):
    """-½ tr Λ, where the denoising one has also the kernel's own share, ½ D / sigma²."""
    loss = loss_of(objective, linear, data(100_000))
    constant = SIZE / (2 * SIGMA**2) if objective is DENOISING else 0.0
    expected = -float(precision().trace()) / 2 + constant
    error = float(loss.std()) / len(loss) ** 0.5
    assert error < 0.02
    assert abs(float(loss.mean()) - expected) < 4 * error


def noised(x_0: torch.Tensor) -> torch.Tensor:
    """The x_t that an objective with seed 0 sees at the one level."""
    seen = []
    loss_of(DENOISING, lambda x, t, condition: seen.append(x) or x, x_0)
    return seen[0]


def test_the_implicit_objective_is_the_jacobians_trace_and_half_the_square():
    x_0 = data(7)
    for x, found in zip(noised(x_0), loss_of(IMPLICIT, curved, x_0), strict=True):
        jacobian = torch.func.jacrev(lambda v: curved(v.reshape(1, *SHAPE), None, None).flatten())(x.flatten())
        expected = jacobian.trace() + curved(x[None], None, None).square().sum() / 2
        assert float(found) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("projection", list(Projection))
@pytest.mark.parametrize("reduced", [True, False])
def test_the_sliced_objective_is_the_quadratic_form_of_its_direction(projection, reduced):
    x_0, objective = data(7), SlicedScoreMatching(0.0, projection, 3, reduced)
    found, x_t = loss_of(objective, curved, x_0), noised(x_0)
    noise = Noise(0, torch.arange(7))
    for i, x in enumerate(x_t):
        jacobian = torch.func.jacrev(lambda v: curved(v.reshape(1, *SHAPE), None, None).flatten())(x.flatten())
        s, each = curved(x[None], None, None).flatten(), []
        for number in range(3):
            v = projection.draw(noise, x_t, number)[i].flatten()
            each.append(v @ jacobian @ v + (s @ s if reduced else (v @ s) ** 2) / 2)
        assert float(found[i]) == pytest.approx(float(sum(each) / 3), rel=1e-9)


@pytest.mark.parametrize("objective", SLICED, ids=repr)
def test_the_mean_over_directions_is_the_implicit_objective(objective):
    """One image many times over, with noise too small to see: only the directions differ."""
    still, x_0 = NoiseLadder(1, 1e-9, 1e-9), data(1).expand(40_000, *SHAPE)
    expected = float(loss_of(IMPLICIT, curved, x_0[:1], still))
    loss = loss_of(objective, curved, x_0, still)
    assert abs(float(loss.mean()) - expected) < 4 * float(loss.std()) / len(loss) ** 0.5 + 1e-6


def test_with_variance_reduction_rademacher_directions_say_all_of_a_diagonal_jacobian():
    still, x_0 = NoiseLadder(1, 1e-9, 1e-9), data(1).expand(1000, *SHAPE)
    spread = {
        reduced: float(loss_of(SlicedScoreMatching(0.0, reduced=reduced), lambda x, t, c: -x, x_0, still).std())
        for reduced in (True, False)
    }
    assert spread[True] < 1e-6
    assert spread[False] > 0.1


@pytest.mark.parametrize("projection", list(Projection))
def test_directions_have_the_identity_as_their_covariance_and_each_its_own_law(projection):
    x = torch.zeros(50_000, 1, 3, 1, dtype=torch.float64)
    v = projection.draw(Noise(3, torch.arange(len(x))), x, 0).flatten(1)
    covariance = v.T @ v / len(v)
    assert torch.allclose(covariance, torch.eye(3, dtype=torch.float64), rtol=0, atol=0.03)
    size = v.square().sum(1)
    if projection is Projection.gaussian:
        assert float(size.var()) == pytest.approx(6, rel=0.1)  # chi-squared with 3 degrees of freedom
    else:
        assert torch.allclose(size, torch.full_like(size, 3.0), rtol=1e-5)
    assert bool((v.abs() == 1).all()) is (projection is Projection.rademacher)
    assert not torch.equal(v, projection.draw(Noise(3, torch.arange(len(x))), x, 1).flatten(1))


@pytest.mark.parametrize("objective", [DENOISING, IMPLICIT, SlicedScoreMatching(0.0)], ids=repr)
def test_the_optimum_for_standard_normal_data_is_minus_x_over_1_plus_sigma_squared(objective):
    """The objective of s = -a x is a parabola in a; three of its points, on the same noise, give its minimum."""
    x_0 = torch.randn(40_000, 1, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    low, middle, high = (
        float(loss_of(objective, lambda x, t, condition, a=a: -a * x, x_0).mean()) for a in (0.0, 1.0, 2.0)
    )
    minimum = 1 - (high - low) / (2 * (high - 2 * middle + low))
    assert minimum == pytest.approx(1 / (1 + SIGMA**2), abs=0.02)


def test_the_denoising_optimum_is_left_with_the_known_uncertainty():
    """½ Var[x_0 | x_t] / sigma⁴ for each pixel, times lambda = sigma²: for N(0, 1), ½ / (1 + sigma²)."""
    process = NoiseLadder(4, 2.0, 0.1)
    x_0 = torch.randn(40_000, 1, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def optimal(x, t, condition):
        return -x / (1 + process.sigma(t).reshape(-1, 1, 1, 1) ** 2)

    terms = DenoisingScoreMatching()(Diffusion(process, Score(), optimal), x_0, Noise(0, torch.arange(len(x_0))))
    for t in range(1, 5):
        loss = terms.loss[terms.t == t]
        expected = 2 * 0.5 / (1 + float(process.sigma(t)) ** 2)
        assert abs(float(loss.mean()) - expected) < 4 * float(loss.std()) / len(loss) ** 0.5, f"t = {t}"


@pytest.mark.parametrize("objective", [DENOISING, IMPLICIT, SlicedScoreMatching(0.0)], ids=repr)
def test_the_weight_is_a_power_of_sigma(objective):
    process, x_0 = NoiseLadder(5, 2.0, 0.1), data(64)
    diffusion, noise = Diffusion(process, Score(), curved), Noise(0, torch.arange(64))
    plain = objective(diffusion, x_0, noise)
    weighted = type(objective)(power=2.0)(diffusion, x_0, noise)
    assert torch.equal(plain.t, weighted.t)
    assert len(plain.t.unique()) == 5
    sigma = torch.tensor([0.1 * 20 ** ((t - 1) / 4) for t in plain.t.tolist()], dtype=torch.float64)
    assert torch.allclose(weighted.loss, sigma**2 * plain.loss, rtol=1e-9)


def test_denoising_with_lambda_sigma_squared_is_half_the_simple_loss_of_the_scaled_score():
    process, x_0, noise = NoiseLadder(5, 2.0, 0.1), data(64), Noise(0, torch.arange(64))
    diffusion = Diffusion(process, ScaledScore(), curved)
    summed, mean = (
        objective(diffusion, x_0, noise).loss for objective in (DenoisingScoreMatching(), SimpleLoss())
    )
    assert torch.allclose(summed, SIZE / 2 * mean, rtol=1e-6)


@pytest.mark.parametrize("objective", [DENOISING, IMPLICIT, *SLICED], ids=repr)
def test_micro_batches_have_the_terms_of_the_whole_batch(objective):
    x_0, noise = data(12), Noise(0, torch.arange(100, 112))
    diffusion = Diffusion(NoiseLadder(3, 1.0, 0.1), Score(), linear)
    whole = objective(diffusion, x_0, noise)
    parts = [objective(diffusion, x_0[rows], noise[rows]) for rows in (slice(0, 5), slice(5, 12))]
    assert torch.equal(torch.cat([part.t for part in parts]), whole.t)
    assert torch.allclose(torch.cat([part.loss for part in parts]), whole.loss, rtol=1e-12)


@pytest.mark.parametrize("objective", [DENOISING, IMPLICIT, *SLICED], ids=repr)
def test_the_gradient_reaches_the_network(objective):
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    diffusion = Diffusion(ONE_LEVEL, Score(), lambda x, t, condition: -weight * x)
    x_0, noise = data(2000), Noise(0, torch.arange(2000))
    objective(diffusion, x_0, noise).loss.mean().backward()
    step = 1e-4
    up, down = (
        float(loss_of(objective, lambda x, t, c, a=0.7 + way: -a * x, x_0).mean()) for way in (step, -step)
    )
    assert float(weight.grad) == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_no_projections_are_refused_by_name():
    with pytest.raises(ValueError, match=r"objective\.projections must be at least 1, got 0"):
        SlicedScoreMatching(projections=0)
