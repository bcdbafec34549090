"""Every variant of every part can be chosen, and a run directory remembers the choice."""

from __future__ import annotations

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from configs.runs import choices, keep_config, load_run, to_value
from configs.schema import GROUPS, PLACES, register
from models.pixels import PixelRange

VARIANTS = [(place, name) for place, group in PLACES.items() for name in GROUPS[group]]

# variant → what it cannot be without, among the fields and checks of the default experiment.
ROLL, BEAT, SCORES = ["experiment=dpm_swiss_roll"], ["experiment=dpm_heartbeat"], ["experiment=ncsn_digits"]
LANGEVIN = ["process=ladder", "parameterization=score", "objective=denoising"]
DRAWN, SHOWN = [*LANGEVIN, "preview.every=0"], [*LANGEVIN, "sampler=langevin"]
NEEDS = {
    ("process.schedule", "reciprocal"): ["parameterization=data"],
    ("objective", "hybrid"): ["parameterization.variance=learned"],
    **dict.fromkeys([("data", name) for name in GROUPS["data"] if name != "shards"], ROLL),
    **dict.fromkeys([("parameterization", "dpm_gaussian"), ("process.schedule", "learned")], ROLL),
    **dict.fromkeys([("parameterization", "dpm_binomial"), ("parameterization", "dpm_binomial_data")], BEAT),
    ("network", "rbf"): ROLL,
    **dict.fromkeys([("process", "binomial"), ("network", "mlp")], BEAT),
    ("network", "multiscale"): ["experiment=dpm_dead_leaves"],
    ("process", "ladder"): SCORES,
    ("network", "refinenet"): SCORES,
    **dict.fromkeys([("sampler", "langevin"), ("sampler", "annealed_langevin")], DRAWN),
    **dict.fromkeys([("preview.sampler", "langevin"), ("preview.sampler", "annealed_langevin")], SHOWN),
}


def composed(*overrides: str):
    register()
    with initialize_config_module("configs", version_base="1.3"):
        return compose("train", list(overrides))


def override(place: str, name: str) -> str:
    """As the command line says it."""
    group = PLACES[place]
    return f"{group}={name}" if group.replace("/", ".") == place else f"{group}@{place}={name}"


@pytest.mark.parametrize(("place", "name"), VARIANTS)
def test_a_variant_is_chosen_and_remembered(tmp_path, place, name):
    config = composed(f"run.directory={tmp_path}", *NEEDS.get((place, name), []), override(place, name))
    run = to_value(config)
    assert choices(run)[place] == name
    keep_config(config, run)
    assert load_run(tmp_path) == run


@pytest.mark.parametrize(("name", "pixels"), [("signed", PixelRange.signed), ("unit", PixelRange.unit)])
def test_a_run_from_before_a_pixels_mean_could_be_chosen_is_understood(tmp_path, name, pixels):
    config = composed(f"run.directory={tmp_path}")
    keep_config(config, to_value(config))
    document = yaml.safe_load((tmp_path / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**document, "pixels": name}))
    assert load_run(tmp_path).pixels == pixels


def test_what_may_change_on_resumption_may_change(tmp_path):
    config = composed(f"run.directory={tmp_path}")
    keep_config(config, to_value(config))
    more = composed(
        f"run.directory={tmp_path}",
        "run.images=1",
        "run.log_every=7",
        "run.keep=1",
        "data.workers=0",
        "sampler=ddim",
        "sampler@preview.sampler=ancestral",
        "preview.count=1",
    )
    keep_config(more, to_value(more))
    assert load_run(tmp_path).run.images == 1


def test_a_run_from_before_a_field_was_there_goes_on_with_its_default(tmp_path):
    config = composed(f"run.directory={tmp_path}")
    keep_config(config, to_value(config))
    (tmp_path / "checkpoints" / "000000000064").mkdir(parents=True)
    kept = OmegaConf.load(tmp_path / "config.yaml")
    del kept.network.classes, kept.objective.label_dropout, kept.parameterization.variance
    OmegaConf.save(kept, tmp_path / "config.yaml")
    other = composed(f"run.directory={tmp_path}", "parameterization.variance=small", "objective.label_dropout=0.2")
    said = (
        r"objective\.label_dropout: 0\.1 there, 0\.2 here; parameterization\.variance: large there, small here\."
    )
    with pytest.raises(ValueError, match=said):
        keep_config(other, to_value(other))
    keep_config(config, to_value(config))


def test_what_is_computed_may_not(tmp_path):
    config = composed(f"run.directory={tmp_path}")
    keep_config(config, to_value(config))
    (tmp_path / "checkpoints" / "000000000064").mkdir(parents=True)
    for change in ("run.seed=1", "data.batch=128", "process/schedule=cosine", "ema.half_lives=[1]"):
        other = composed(f"run.directory={tmp_path}", change)
        with pytest.raises(ValueError, match="another run, which differs in"):
            keep_config(other, to_value(other))
