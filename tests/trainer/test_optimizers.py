"""OptimizerConfig: values out of range are refused, the rest reaches AdamW."""

from __future__ import annotations

import pytest
import torch

from trainer.optimizers import OptimizerConfig


def test_every_value_reaches_the_optimizer():
    config = OptimizerConfig(3e-4, 0, [0.5, 0.7], 1e-6, 0.2)
    group = config.build([torch.nn.Parameter(torch.zeros(2))]).param_groups[0]
    assert {name: group[name] for name in ("lr", "betas", "eps", "weight_decay", "fused")} == {
        "lr": 3e-4,
        "betas": (0.5, 0.7),
        "eps": 1e-6,
        "weight_decay": 0.2,
        "fused": True,
    }


def test_the_rate_follows_the_images_seen():
    config = OptimizerConfig(0.4, warmup_images=600, decay_images=900)
    assert config.rate(300) == pytest.approx(0.4 * 1 / 2 * 3 / 4)


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0.0},
        {"warmup_images": -1},
        {"betas": [0.9]},
        {"betas": [0.9, 1.0]},
        {"decay_images": -1},
    ],
)
def test_values_out_of_range_are_refused_by_name(values):
    (name, value), *_ = values.items()
    with pytest.raises(ValueError, match=rf"optimizer\.{name} ") as error:
        OptimizerConfig(**values)
    assert str(value) in str(error.value)
