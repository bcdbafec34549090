"""The training door: what it says to bad input, and what it writes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_pipeline.index import ShardIndex
from tests.launch.doors import ENVIRONMENT, SMALL, opened


def refused(digits: Path, directory: Path, *more: str) -> str:
    shards = f"data.shards={digits}/train"
    return opened("train", *SMALL, shards, f"run.directory={directory}", *more, status=1)


def test_help_shows_the_groups_and_how_to_resume():
    text = opened("train", "--help")
    assert "python -m launch.train experiment=NAME" in text
    assert "ddpm_lsun_church" in text
    assert "resumes" in text


def test_cfg_job_prints_the_composed_configuration():
    text = opened("train", "--cfg", "job", "experiment=ddpm_lsun_bedroom")
    assert "images: 153600000" in text
    assert "flip: false" in text


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("run.imagse=10", "imagse"),
        ("run.images=many", "run.images"),
        ("network=vit", "network/vit"),
        ("parameterization.variance=medium", "variance"),
    ],
)
def test_a_wrong_key_type_or_choice_is_named(digits, tmp_path, argument, said):
    assert said in refused(digits, tmp_path, argument)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data.shards=nowhere"], "data.shards=nowhere.*launch.pack"),
        (["data.batch=10", "engine.accumulation=3"], "data.batch must divide"),
        (["data.resolution=16"], "smaller than"),
        (["network.multipliers=[1,1,1,1,1]"], "data.resolution must be a multiple of 16"),
        (["run.images=0"], "run.images must be at least 1"),
        (["network.groups=3"], "network.groups"),
        (["process/schedule=reciprocal"], "alpha-bar"),
        (["ema.half_lives=[]"], "ema.half_lives"),
        (["~run.directory"], "run.directory"),
        (["ema.half_lives=[nan]"], "ema.half_lives"),
        (["network.groups=0"], "network.groups must be at least 1"),
        (["sampler.steps=21"], "sampler.steps must be at most process.steps=20, got 21"),
        (["preview.every=32"], "preview.sampler.steps must be at most process.steps=20, got 50"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_1(digits, tmp_path, arguments, said):
    text = refused(digits, tmp_path, *arguments)
    assert "Traceback" not in text
    assert re.search(said, text), text


def test_a_run_directory_of_another_config_says_which_fields_differ(digits, finished):
    text = refused(digits, finished, "optimizer.learning_rate=0.5", "parameterization=velocity")
    assert "optimizer.learning_rate: 0.001 there, 0.5 here" in text
    assert "choices.parameterization: epsilon there, velocity here" in text


def test_a_command_that_failed_leaves_the_directory_to_the_corrected_one(digits, tmp_path):
    refused(digits, tmp_path, "data.shards=nowhere", "run.images=16", "run.seed=5")
    text = opened("train", *SMALL, f"data.shards={digits}/train", f"run.directory={tmp_path}", "run.images=16")
    assert "finished: 16 images seen" in text


def test_a_run_and_its_data_may_be_moved_but_not_changed(digits, finished, tmp_path):
    moved, elsewhere = tmp_path / "moved", tmp_path / "elsewhere"
    shutil.copytree(finished, moved)
    shutil.copytree(digits / "train", elsewhere)
    resumed = [*SMALL, f"run.directory={moved}", "run.images=336"]
    assert "finished: 336 images seen" in opened("train", *resumed, f"data.shards={elsewhere}")
    text = opened("train", *resumed, f"data.shards={digits}/test", status=1)
    assert "was trained on other shards" in text


def test_processes_that_do_not_know_where_to_meet_are_refused(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "SLURM_STEP_NUM_TASKS", "4")
    assert "4 processes were started, but MASTER_ADDR" in refused(digits, tmp_path)


def test_skipped_images_are_counted(digits, tmp_path):
    """One PNG among the digits is overwritten in place; skipping, the run ends and says how often it was met."""
    shards = tmp_path / "shards"
    shutil.copytree(digits / "train", shards)
    member = ShardIndex.read(shards / "shard-000000.tar").member(0, "png")
    with (shards / "shard-000000.tar").open("r+b") as tar:
        tar.seek(member.offset)
        tar.write(b"\0" * member.size)
    arguments = [*SMALL, f"data.shards={shards}", "run.images=1600", "run.log_every=1600"]
    text = opened("train", *arguments, f"run.directory={tmp_path / 'raise'}", status=1)
    assert f"key {member.key!r}, png at bytes {member.offset}:{member.offset + member.size}" in text
    opened("train", *arguments, f"run.directory={tmp_path / 'skip'}", "data.on_error=skip")
    assert "skipped" in (tmp_path / "skip" / "train.log").read_text()
    events = EventAccumulator(str(tmp_path / "skip")).Reload()
    assert events.Scalars("data/skipped")[-1].value >= 1


def test_the_run_directory_holds_what_the_documentation_says(finished):
    assert (finished / "config.yaml").exists()
    assert "320/320 images" in (finished / "train.log").read_text()
    events = EventAccumulator(str(finished)).Reload()
    tags = set(events.Tags()["scalars"])
    quarters = {f"loss_by_t/quarter_{number}" for number in range(1, 5)}
    speed = {"speed/images_per_second", "speed/waiting_for_data"}
    assert {"loss", "gradient_norm", "learning_rate", "memory/gigabytes"} | quarters | speed <= tags
    assert "config/text_summary" in events.Tags()["tensors"]


def test_previews_of_the_averaged_weights_go_to_tensorboard_and_samples(digits, tmp_path):
    more = ["run.images=64", "preview.every=32", "preview.count=4", "preview.sampler.steps=5"]
    opened("train", *SMALL, f"data.shards={digits}/train", f"run.directory={tmp_path}", *more)
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["images"] == ["samples"]
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == [
        "000000000032.png",
        "000000000064.png",
    ]
    assert Image.open(tmp_path / "samples" / "000000000064.png").size == (67, 67)
