"""Dead leaves: radii of the power law, grays that are exactly uniform, and images that are pure functions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from data_pipeline.dead_leaves import DeadLeaves


def test_radii_have_the_density_r_to_the_minus_3():
    config = DeadLeaves(smallest=2.0, largest=10.0)
    whole = integrate.quad(lambda r: r**-3, 2, 10)[0]
    for share in (0.01, 0.3, 0.9, 0.99):
        below = integrate.quad(lambda r: r**-3, 2, config.radius(share))[0]
        assert below / whole == pytest.approx(share)


def test_every_pixel_is_uniform_with_unit_variance_and_neighbours_share_leaves():
    x = DeadLeaves(size=4, smallest=1.0, largest=4.0).samples(0, 0, 300)[:, 0].astype(np.float64)
    assert stats.kstest(x[:, 1, 2], "uniform", (-(3**0.5), 2 * 3**0.5)).pvalue > 1e-4
    assert (x[:, 0, 0] == x[:, 0, 1]).mean() > (x[:, 0, 0] == x[:, 3, 3]).mean() > 0


def test_an_image_depends_on_seed_and_position_alone():
    config = DeadLeaves(size=4, largest=4.0)
    whole = config.samples(7, 0, 6)
    assert whole.shape == (6, 1, 4, 4)
    assert np.array_equal(config.samples(7, 4, 2), whole[4:])
    assert not np.array_equal(config.samples(8, 0, 6), whole)


@pytest.mark.parametrize(
    ("fields", "said"), [({"size": 0}, r"data\.size"), ({"smallest": 40.0}, r"data\.smallest")]
)
def test_bad_input_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        DeadLeaves(**fields)
