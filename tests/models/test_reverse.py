"""The forms of the Gaussian reverse kernel (Sohl-Dickstein et al. 2015) against the forward process's own laws."""

from __future__ import annotations

import pytest
import torch

from models.noise import Noise, Purpose
from models.processes import GaussianProcess
from models.reverse import GaussianKernel, Mean
from models.schedules import Linear

PROCESS = GaussianProcess(Linear(20, 1e-4, 0.3))


def normal(seed: int) -> torch.Tensor:
    return Noise(seed, torch.arange(6)).normal(Purpose.PRIOR, (2, 1, 1)).double()


@pytest.mark.parametrize("t", [2, 7, 20])
@pytest.mark.parametrize("form", [Mean.code, Mean.data])
def test_a_network_that_says_nothing_gives_the_forward_kernel(form, t):
    x = normal(0)
    law, forward = (
        GaussianKernel(form).law(PROCESS, 0 * torch.cat((x, x), 1), x, t, t - 1),
        PROCESS.transition(x, t, t - 1),
    )
    assert torch.allclose(law.mean, forward.mean, rtol=1e-12)
    assert torch.allclose(law.std.expand_as(x), forward.std.expand_as(x), rtol=1e-12)


@pytest.mark.parametrize("t", [2, 7, 20, torch.tensor([2, 3, 9, 14, 19, 20])])
def test_the_data_form_with_the_true_x_0_has_the_posteriors_mean(t):
    x_0, x_t = normal(1), normal(2)
    z = x_0 - torch.as_tensor(PROCESS.signal(t)).reshape(-1, 1, 1, 1) * x_t
    law = GaussianKernel(Mean.data).law(PROCESS, torch.cat((z, z), 1), x_t, t, t - 1)
    assert torch.allclose(law.mean, PROCESS.posterior(x_t, x_0, t, t - 1).mean, rtol=1e-12)


def test_the_papers_form_decays_towards_z_by_the_share_of_its_variance():
    """Eq. 64-65, by hand: z_Sigma = ln 3 makes odds of 3 beta / (1 - beta)."""
    x, z = normal(3), normal(4)
    beta = float(1 - PROCESS.kept(7, 6))
    variance = 3 * beta / (1 + 2 * beta)
    output = torch.cat((z, torch.full_like(z, 3.0).log()), 1)
    law = GaussianKernel(Mean.paper).law(PROCESS, output, x, 7, 6)
    assert torch.allclose(law.std**2, torch.full_like(x, variance), rtol=1e-12)
    assert torch.allclose(law.mean, x + variance * (z - x), rtol=1e-12)
