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
from models.langevin import Step
from models.networks.multiscale import MultiScaleConfig
from models.networks.refinenet import RefineNetConfig
from models.networks.unet import UNetConfig
from models.objectives import LowerBound
from models.pixels import PixelRange
from models.reverse import GaussianKernel
from models.schedules import Reciprocal
from models.score_matching import DenoisingScoreMatching
from trainer.distributed import World
from trainer.interruption import Interruption
from trainer.loop import Outcome, train
from trainer.run import Run
from trainer.schedules import ema_decay

EXPERIMENTS = sorted(path.stem for path in Path("configs/experiment").glob("*.yaml"))
LSUN = 113_673_219

# name: parameters, images, batch, peak learning rate, warm-up steps, flips, variance, dropout
PAPER = {
    "ddpm_cifar10": (35_746_307, 800_000 * 128, 128, 2e-4, True, "large", 0.1),
    "ddpm_lsun_church": (LSUN, 1_200_000 * 64, 64, 2e-5, True, "small", 0.0),
    "ddpm_lsun_bedroom": (LSUN, 2_400_000 * 64, 64, 2e-5, False, "small", 0.0),
    "ddpm_lsun_bedroom_large": (255_677_955, 1_150_000 * 64, 64, 2e-5, False, "small", 0.0),
    "ddpm_lsun_cat": (LSUN, 1_800_000 * 64, 64, 2e-5, True, "small", 0.0),
    "ddpm_celebahq": (LSUN, 500_000 * 64, 64, 2e-5, True, "small", 0.0),
}

# name: parameters, images, learning rate, flips, EMA a step of 128, (L, sigma_1), (epsilon, steps, denoise)
SCORES = {
    "ncsn_cifar10": (30_117_635, 200_000 * 128, 1e-3, True, 0.0, (10, 1.0), (2e-5, 100, False)),
    "ncsn_celeba": (30_117_635, 200_000 * 128, 1e-3, True, 0.0, (10, 1.0), (2e-5, 100, False)),
    "ncsn_mnist": (7_638_657, 200_000 * 128, 1e-3, False, 0.0, (10, 1.0), (2e-5, 100, False)),
    "ncsnv2_cifar10": (29_694_083, 300_000 * 128, 1e-4, True, 0.999, (232, 50.0), (6.2e-6, 5, True)),
    "ncsnv2_lsun_church": (83_445_379, 200_000 * 128, 1e-4, True, 0.999, (788, 140.0), (4.9e-6, 4, True)),
}

LADDER = ("process=ladder", "parameterization=score", "objective=denoising")

# What makes a network of each kind small.
SHRUNK = {
    UNetConfig: ("network.channels=8", "network.groups=4"),
    RefineNetConfig: ("network.channels=4",),
    MultiScaleConfig: ("network.channels=4", "network.pixelwise=[4]"),
}

# Their data needs no shards, and their networks are small as they are.
DRAWN = {
    "dpm_swiss_roll",
    "dpm_swiss_roll_wide",
    "dpm_heartbeat",
    "dpm_dead_leaves",
    "ddpm_dead_leaves",
    "ncsn_mixture",
}

# name: pixels, T, channels and resolution, parameters
DPM = {
    "dpm_mnist": (PixelRange(33.318, 78.567, True), 1000, (1, 28), 1_679_548),
    "dpm_cifar10": (PixelRange(120.71, 64.15, True), 1000, (3, 32), 13_598_880),
    "dpm_bark": (PixelRange(104.8, 82.7, True), 500, (3, 32), 265_980),
    "dpm_dead_leaves": (PixelRange(127.5, 255 / 12**0.5), 1000, (1, 8), 34_148),
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
    assert set(PAPER) | set(SCORES) | {"ddpm_digits", "ddpm_photographs", "ncsn_digits"} <= set(EXPERIMENTS)


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


@pytest.mark.parametrize("name", sorted(SCORES))
def test_the_settings_of_the_score_networks_are_the_papers(name):
    run = composed(name)
    parameters, images, rate, flip, decay, (levels, largest), walk = SCORES[name]
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in run.build_network().parameters()) == parameters
    assert (run.run.images, run.data.batch, run.data.flip) == (images, 128, flip)
    assert (run.optimizer.learning_rate, run.optimizer.warmup_images, run.engine.clip_norm) == (rate, 0, 0.0)
    assert ema_decay(run.ema.half_lives[0], 128) == pytest.approx(decay, abs=1e-9)
    assert (run.process.levels, run.process.largest, run.process.smallest) == (levels, largest, 0.01)
    assert (run.pixels.low, run.pixels.high) == (0, 1)
    assert run.pixels.dequantised == name.startswith("ncsn_")
    assert run.objective == DenoisingScoreMatching(power=2.0)
    for sampler in (run.sampler, run.preview.sampler):
        assert (sampler.epsilon, sampler.steps, sampler.denoise) == walk
        assert (sampler.step, sampler.start) == (Step.whole, [0.0, 1.0])


@pytest.mark.parametrize("name", sorted(DPM))
def test_the_settings_of_2015_on_images(name):
    run = composed(name)
    pixels, steps, (channels, resolution), parameters = DPM[name]
    assert (run.pixels, run.process.steps) == (pixels, steps)
    assert run.shape == (channels, resolution, resolution)
    assert isinstance(run.objective, LowerBound)
    assert isinstance(run.parameterization, GaussianKernel)
    assert isinstance(run.process.schedule, Reciprocal)
    assert run.network.readout.bumps == 10
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in run.build_network().parameters()) == parameters


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["process=ladder"], "parameterization=Epsilon needs a GaussianProcess, got process=NoiseLadder"),
        ([*LADDER], "sampler=Ancestral needs a MarkovProcess, got process=NoiseLadder"),
        ([*LADDER, "sampler=annealed_langevin"], "preview.sampler=Ddim needs a GaussianProcess"),
        (
            ["parameterization=dpm_gaussian", "objective=bound", "preview.every=0", "sampler=ddim"],
            "sampler=Ddim goes through x̂_0, which parameterization=GaussianKernel does not give",
        ),
        (["parameterization=dpm_gaussian"], "objective=SimpleLoss goes through x̂_0"),
        (["process/schedule=learned"], "process/schedule=learned ascends on K: it needs objective=bound"),
        (
            ["sampler=annealed_langevin"],
            "sampler=AnnealedLangevin needs a NoiseLadder, got process=GaussianProcess",
        ),
        (["data.labels=true"], "go together, got data.labels=true and network.classes=0"),
        (["network.classes=10"], "go together, got data.labels=false and network.classes=10"),
        (["objective.label_dropout=1"], r"objective.label_dropout must lie in \[0, 1\), got 1"),
    ],
)
def test_parts_that_do_not_fit_the_process_are_refused_when_composed(overrides, said):
    with pytest.raises(ValueError, match=said):
        composed("ddpm_digits", *overrides)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_shrunk_it_trains_two_steps(name, photographs, tmp_path):
    images = (f"data.shards={photographs}", "data.channels=3", "data.resolution=32")
    run = composed(
        name,
        f"run.directory={tmp_path}",
        *(() if name in DRAWN else images),
        "data.batch=2",
        *SHRUNK.get(type(composed(name).network), ()),
        "run.images=4",
        "preview.every=0",
    )
    assert train(run, World(), Interruption()) is Outcome.FINISHED
    assert [path.name for path in run.checkpoints().iterdir()] == ["000000000004"]
