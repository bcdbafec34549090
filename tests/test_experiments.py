"""Every experiment composes, has the paper's network and settings, and (shrunk) trains two steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module

from configs.runs import to_value
from configs.schema import register
from data_pipeline.sources import Photographs
from data_pipeline.write import write_shards
from trainer.distributed import World
from trainer.loop import Outcome, train
from trainer.run import Run
from trainer.schedules import ema_decay

EXPERIMENTS = sorted(path.stem for path in Path("configs/experiment").glob("*.yaml"))
LSUN = 113_673_219

# name: parameters, images, batch, peak learning rate, warm-up steps, flips, variance, dropout (PAPERS: section 3)
PAPER = {
    "ddpm_cifar10": (35_746_307, 800_000 * 128, 128, 2e-4, True, "large", 0.1),
    "ddpm_lsun_church": (LSUN, 1_200_000 * 64, 64, 2e-5, True, "small", 0.0),
    "ddpm_lsun_bedroom": (LSUN, 2_400_000 * 64, 64, 2e-5, False, "small", 0.0),
    "ddpm_lsun_bedroom_large": (255_677_955, 1_150_000 * 64, 64, 2e-5, False, "small", 0.0),
    "ddpm_lsun_cat": (LSUN, 1_800_000 * 64, 64, 2e-5, True, "small", 0.0),
    "ddpm_celebahq": (LSUN, 500_000 * 64, 64, 2e-5, True, "small", 0.0),
}


def composed(name: str, *overrides: str) -> Run:
    register()
    with initialize_config_module("configs", version_base="1.3"):
        return to_value(compose("train", [f"experiment={name}", *overrides]))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> dict[tuple[int, int], Path]:
    out = tmp_path_factory.mktemp("photographs")
    write_shards(Photographs(8, 32), out)
    return out


def test_every_experiment_of_the_paper_is_there():
    assert set(PAPER) | {"ddpm_digits", "ddpm_photographs"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", sorted(PAPER))
def test_the_settings_are_the_papers(name):
    run = composed(name)
    parameters, images, batch, rate, flip, variance, dropout = PAPER[name]
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in run.build_network().parameters()) == parameters
    assert (run.run.images, run.data.batch, run.data.flip) == (images, batch, flip)
    assert run.optimizer.learning_rate == rate
    assert (run.optimizer.warmup_images, run.optimizer.betas) == (5000 * batch, [0.9, 0.999])
    assert (run.optimizer.epsilon, run.optimizer.weight_decay, run.engine.clip_norm) == (1e-8, 0.0, 1.0)
    assert ema_decay(run.ema.half_lives[0], batch) == pytest.approx(0.9999, abs=1e-9)
    assert run.parameterization.variance.value == variance
    assert (run.network.dropout, run.network.groups) == (dropout, 32)
    schedule = run.process.schedule
    assert (schedule.steps, schedule.first, schedule.last) == (1000, 1e-4, 0.02)


SHRUNK_UNET = ("network.channels=8", "network.groups=4")
DRAWN = {"dpm_swiss_roll", "dpm_heartbeat"}  # their data needs no shards and their networks are small as they are


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_shrunk_it_trains_two_steps(name, photographs, tmp_path):
    images = (f"data.shards={photographs}", "data.channels=3", "data.resolution=32", *SHRUNK_UNET)
    run = composed(
        name,
        f"run.directory={tmp_path}",
        *(() if name in DRAWN else images),
        "data.batch=2",
        "run.images=4",
        "preview.every=0",
    )
    assert train(run, World(), lambda: False) is Outcome.FINISHED
    assert [path.name for path in run.checkpoints().iterdir()] == ["000000000004"]
