"""Every figure, drawn for a tiny run of each kind: its file, its finite numbers and its place in TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.doors import FigureConfig
from configs.figures import FIGURES
from configs.runs import keep_config, to_value
from configs.schema import register
from data_pipeline.config import DataConfig
from launch.figure import draw, named
from models.ladder import NoiseLadder
from models.langevin import Langevin
from models.networks.unet import UNetConfig
from models.objectives import SimpleLoss
from models.parameterizations import Score
from models.pixels import PixelRange
from models.predictor_corrector import PredictorCorrector
from models.score_matching import DenoisingScoreMatching
from tests.launch.doors import opened
from trainer.distributed import World
from trainer.figures.inpainting import Inpainting
from trainer.figures.interpolation import Interpolation
from trainer.figures.langevin_steps import LangevinSteps
from trainer.figures.neighbours import Neighbours
from trainer.figures.progressive import Progressive
from trainer.figures.rate_distortion import RateDistortion
from trainer.figures.shared_latents import SharedLatents
from trainer.interruption import Interruption
from trainer.loop import Outcome, train
from trainer.run import PreviewConfig, Run

FEW = ("run.images=96", "run.save_every=96", "run.log_every=32", "data.batch=32", "preview.every=0")
NCSN = ("experiment=ncsn_digits", *FEW, "network.channels=4", "sampler.steps=2")
TRAINED = {
    "roll": ("experiment=dpm_swiss_roll", *FEW),
    "beat": ("experiment=dpm_heartbeat", *FEW, "process.schedule.steps=20"),
    "mixture": ("experiment=ncsn_mixture", *FEW, "network.widths=[8]"),
    "ncsn": NCSN,
    "one_level": ("experiment=ncsn_digits_one_level", *FEW, "network.channels=4", "sampler.steps=20"),
    "leaves": (
        "experiment=dpm_swiss_roll",
        *FEW,
        "data=dead_leaves",
        "data.size=4",
        "process.schedule.steps=5",
        "network.units=4",
    ),
}

# figure → the runs that it is drawn for, and what makes it small. {other} is the directory of another run.
DRAWN = {
    "forward_reverse": (["ddpm", "leaves"], ["figure.rows=2"]),
    "drift": (["roll"], ["figure.count=50", "figure.arrows=5"]),
    "heartbeat": (["beat"], ["figure.count=30"]),
    "denoising": (["ddpm", "leaves"], ["figure.count=3"]),
    "inpainting": (["ddpm", "ncsn", "leaves"], ["figure.rows=2", "figure.copies=2"]),
    "losses": (["ddpm"], ["figure.other={other}"]),
    "score_field": (["mixture"], ["figure.arrows=5", "figure.count=64", "figure.levels=[0,1]"]),
    "langevin_modes": (["mixture"], ["figure.count=40", "figure.steps=2"]),
    "langevin_steps": (["ncsn", "one_level"], ["figure.rows=2", "figure.columns=4"]),
    "rate_distortion": (["ddpm"], ["figure.count=4"]),
    "progressive": (["ddpm"], ["figure.rows=2", "figure.count=40", "figure.times=[1,0.5,0.1]"]),
    "shared_latents": (["ddpm", "leaves"], ["figure.rows=2", "figure.copies=2", "figure.times=[1,0.5,0.1]"]),
    "interpolation": (["ddpm", "leaves"], ["figure.pairs=2", "figure.points=3"]),
    "coarse_to_fine": (["ddpm"], ["figure.points=3"]),
    "neighbours": (["ddpm", "ncsn", "leaves"], ["figure.rows=3", "figure.pool=50"]),
}


@pytest.fixture(scope="module")
def runs(finished, digits, tmp_path_factory) -> dict[str, Path]:
    out = {"ddpm": finished}
    for name, arguments in TRAINED.items():
        out[name] = tmp_path_factory.mktemp(name)
        shards = [f"data.shards={digits}/train"] if "ncsn_digits" in arguments[0] else []
        config = composed("train", *arguments, *shards, f"run.directory={out[name]}")
        run = to_value(config)
        keep_config(config, run)
        assert train(run, World(), Interruption()) is Outcome.FINISHED
    return out


def composed(door: str, *arguments: str) -> DictConfig:
    register()
    with initialize_config_module("configs", version_base="1.3"):
        return compose(door, list(arguments))


def chosen(name: str, directory: Path, *more: str) -> FigureConfig:
    return to_value(composed("figure", f"figure={name}", f"run.directory={directory}", *more))


def test_every_figure_is_tried():
    assert DRAWN.keys() == FIGURES.keys()


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, (kinds, _) in DRAWN.items() for kind in kinds])
def test_it_is_drawn(runs, name, kind):
    more = [argument.format(other=runs["ncsn"]) for argument in DRAWN[name][1]]
    path = draw(chosen(name, runs[kind], *more))
    checkpoint = max((runs[kind] / "checkpoints").iterdir()).name
    assert path == runs[kind] / "figures" / f"{name}-{checkpoint}.png"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert min(pixels.shape[:2]) > 200
    assert pixels.std() > 5
    with np.load(path.with_suffix(".npz")) as numbers:
        assert json.loads(str(numbers["provenance"]))["seed"] == 0
        arrays = {key: value for key, value in numbers.items() if key != "provenance"}
        assert arrays
        assert all(np.isfinite(value).all() for value in arrays.values())
    events = EventAccumulator(str(runs[kind])).Reload()
    assert [event.step for event in events.Images(f"figures/{name}")] == [int(checkpoint)]


def test_the_same_command_draws_the_same_and_another_seed_does_not(runs):
    pictures = [
        draw(chosen("forward_reverse", runs["ddpm"], "figure.rows=1", f"seed={seed}")).read_bytes()
        for seed in (5, 5, 6)
    ]
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_mask_may_be_a_png(runs, tmp_path):
    hole = np.zeros((8, 8), np.uint8)
    hole[2:5, 3] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    path = draw(chosen("inpainting", runs["ddpm"], f"figure.mask={tmp_path}/mask.png", "figure.copies=1"))
    with np.load(path.with_suffix(".npz")) as numbers:
        assert np.array_equal(numbers["known"][0], hole == 0)
        same = (numbers["filled"] == numbers["data"][:, None])[:, 0, 0]
    assert same[:, hole == 0].all()
    # The hole is drawn anew; a pixel that is held at black may be as black as the data's.
    assert same[:, hole > 0].mean() < 0.5
    Image.fromarray(hole[:4]).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="must be of the pictures' size 8x8, got 4x8"):
        draw(chosen("inpainting", runs["ddpm"], f"figure.mask={tmp_path}/mask.png"))


@pytest.mark.parametrize(
    ("name", "kind", "more", "said"),
    [
        ("progressive", "roll", [], "shows x̂_0, which parameterization=GaussianKernel lacks"),
        ("progressive", "ncsn", [], "figure=Progressive needs a GaussianProcess, got process=NoiseLadder"),
        ("rate_distortion", "mixture", [], "figure=RateDistortion needs a GaussianProcess"),
        ("rate_distortion", "leaves", [], "shows x̂_0, which parameterization=GaussianKernel lacks"),
        ("drift", "ddpm", [], r"shows points in the plane, got data=DataConfig of shape \(1, 8, 8\)"),
        ("drift", "beat", [], "needs a GaussianProcess, got process=BinomialProcess"),
        ("heartbeat", "ddpm", [], "figure=Heartbeat needs a BinomialProcess"),
        ("forward_reverse", "roll", [], "shows pictures of more than one pixel"),
        ("langevin_steps", "ddpm", [], "figure=LangevinSteps needs a NoiseLadder"),
        ("langevin_modes", "ncsn", [], "shows points in the plane"),
        ("inpainting", "ddpm", ["figure.hole=[0,0,1,1]"], "leave some of the picture known and some unknown"),
        ("inpainting", "ddpm", ["figure.hole=[1,0,0,1]"], "must be top < bottom"),
        ("losses", "ddpm", [], r"figure\.other must be given"),
        ("losses", "ddpm", ["figure.other=nowhere"], "nowhere holds no logged losses"),
        ("progressive", "ddpm", ["figure.times=[2]"], r"figure\.times must be one or more shares of T"),
        ("neighbours", "ddpm", ["figure.rows=0"], r"figure\.rows must be at least 1, got 0"),
    ],
)
def test_a_run_that_cannot_show_it_is_refused_before_anything_is_drawn(runs, monkeypatch, name, kind, more, said):
    def never(self, subject):
        raise AssertionError("it was drawn")

    monkeypatch.setattr(FIGURES[name], "draw", never)
    with pytest.raises(ValueError, match=said):
        draw(chosen(name, runs[kind], *more))


@pytest.mark.parametrize(
    ("figure", "sampler", "said"),
    [
        (Inpainting(), Langevin(), "by annealed Langevin dynamics, got sampler=Langevin"),
        (LangevinSteps(), PredictorCorrector(), "shows Langevin dynamics, got sampler=PredictorCorrector"),
    ],
)
def test_a_sampler_that_does_not_walk_as_the_figure_shows_is_refused(figure, sampler, said):
    on_a_ladder = Run(
        data=DataConfig("shards"),
        process=NoiseLadder(),
        parameterization=Score(),
        objective=DenoisingScoreMatching(),
        sampler=sampler,
        preview=PreviewConfig(every=0),
    )
    with pytest.raises(ValueError, match=said):
        figure.check(on_a_ladder)


def test_the_rate_is_of_pixels_from_minus_1_to_1():
    with pytest.raises(ValueError, match=r"of 256 values in \[-1, 1\].*got PixelRange\(mean=0\.0"):
        RateDistortion().check(Run(pixels=PixelRange.unit))


def test_only_what_is_drawn_by_class_is_shown_of_a_run_that_never_hid_one():
    told = Run(
        data=DataConfig("shards", labels=True),
        network=UNetConfig(classes=10),
        objective=SimpleLoss(label_dropout=0.0),
    )
    for drawn_by_class in (Neighbours(), RateDistortion()):
        drawn_by_class.check(told)
    for figure in (Progressive(), SharedLatents(), Interpolation()):
        with pytest.raises(ValueError, match=r"without a class, .* objective\.label_dropout is 0"):
            figure.check(told)


def test_the_name_comes_first_and_help_lists_all_of_them(finished):
    text = opened("figure", "shared_latents", f"run.directory={finished}", "figure.rows=1", "figure.copies=1")
    assert f"{finished}/figures/shared_latents-000000000320.png" in text
    told = opened("figure", "--help")
    assert all(f"\n{name} " in told for name in FIGURES)
    assert "error: figure must be given" in opened("figure", f"run.directory={finished}", status=1)
    assert "Could not find 'figure/portrait'" in opened("figure", "portrait", status=1)


def test_what_is_in_hydras_words_already_is_left_alone():
    assert named(["drift", "seed=1"]) == ["figure=drift", "seed=1"]
    for arguments in (["figure=drift"], ["--help"], ["seed=1", "drift"], []):
        assert named(arguments) == arguments
