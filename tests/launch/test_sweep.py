"""A sweep over a run's fields: a job that fails neither stops the others nor goes unnoticed."""

from __future__ import annotations

from pathlib import Path

from tests.launch.doors import SMALL, opened


def finished(directory: Path) -> bool:
    return (directory / "checkpoints" / "000000000032").is_dir()


def test_a_failing_job_leaves_the_others_to_run_and_the_sweep_ends_with_status_1(digits, tmp_path):
    """The second of three batches does not divide into its micro-batches, which is found only when it runs."""
    swept = ["data.batch=8,9,16", "engine.accumulation=2", "run.images=32"]
    text = opened(
        "train",
        "--multirun",
        *SMALL,
        f"data.shards={digits}/train",
        f"run.directory={tmp_path}/${{data.batch}}",
        f"hydra.sweep.dir={tmp_path}/sweep",
        *swept,
        status=1,
    )
    assert "data.batch must divide" in text
    assert [finished(tmp_path / batch) for batch in ("8", "9", "16")] == [True, False, True]


def test_a_sweep_in_which_all_goes_well_ends_with_status_0(digits, tmp_path):
    opened(
        "train",
        "--multirun",
        *SMALL,
        f"data.shards={digits}/train",
        f"run.directory={tmp_path}/${{run.seed}}",
        f"hydra.sweep.dir={tmp_path}/sweep",
        "run.seed=1,2",
        "run.images=32",
    )
    assert finished(tmp_path / "1")
    assert finished(tmp_path / "2")
