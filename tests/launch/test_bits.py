"""The door of bits/dim, on a small run of digits; and runs that train on the bound."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from models.ladder import NoiseLadder
from models.langevin import AnnealedLangevin
from models.parameterizations import Score
from models.pixels import PixelRange
from models.score_matching import DenoisingScoreMatching
from tests.launch.doors import SMALL, opened
from trainer.metrics.bits_per_dim import check_decoder
from trainer.run import PreviewConfig, Run


def bits(directory: Path, shards: Path, *more: str) -> dict:
    text = opened("bits", f"run.directory={directory}", f"shards={shards}", "count=40", *more)
    return json.loads(text.strip().splitlines()[-1])


def test_it_prints_one_json_object_last_whose_parts_add_up(finished, digits):
    found = bits(finished, digits / "test")
    assert found["images"] == 40
    assert found["bits_per_dim"] == pytest.approx(found["rate"] + found["distortion"])
    assert found["bits_per_dim"] == pytest.approx(sum(found["terms"]))
    assert len(found["terms"]) == 21
    assert all(term >= 0 for term in found["terms"][1:])
    rows = found["rate_distortion"]
    assert [row["reverse_steps"] for row in rows] == list(range(20, 0, -2))
    assert all(one["rate"] > other["rate"] for one, other in pairwise(rows))
    assert rows[0]["rmse"] < rows[-1]["rmse"]
    assert found["ledger"]["bits_per_dim"] == pytest.approx(found["bits_per_dim"])
    kept = [json.loads(path.read_text()) for path in (finished / "metrics").glob("bits-000000000320-*.json")]
    assert found in kept


def test_the_batch_changes_nothing_and_the_seed_changes_the_noise(finished, digits):
    whole, parts = (bits(finished, digits / "test", f"batch={batch}") for batch in (40, 7))
    assert parts["terms"] == pytest.approx(whole["terms"], rel=1e-4)
    other = bits(finished, digits / "test", "seed=1")
    assert other["bits_per_dim"] != whole["bits_per_dim"]
    assert other["bits_per_dim"] == pytest.approx(whole["bits_per_dim"], rel=0.1)


def test_seen_at_fewer_times_the_bound_has_fewer_terms(finished, digits):
    found = bits(finished, digits / "test", "steps=5", "power=2")
    assert len(found["terms"]) == 6
    assert found["steps"] == 5
    assert [row["reverse_steps"] for row in found["rate_distortion"]] == [5, 4, 3, 2, 1]
    assert "from 2 to the process's 20 steps, got 21" in opened(
        "bits", f"run.directory={finished}", f"shards={digits}/test", "steps=21", status=1
    )


@pytest.mark.parametrize("objective", ["variational_bound", "hybrid"])
def test_a_run_on_the_bound_learns_its_variance_and_is_drawn_from_by_every_sampler(digits, tmp_path, objective):
    run = tmp_path / "run"
    learned = ["parameterization.variance=learned", f"objective={objective}"]
    opened("train", *SMALL, f"data.shards={digits}/train", f"run.directory={run}", *learned)
    assert bits(run, digits / "test")["bits_per_dim"] > 0
    for sampler in ("heun", "dpm_solver_2m", "ancestral"):
        choice = [f"sampler={sampler}", "sampler.steps=5", "count=2", f"out={tmp_path / sampler}"]
        assert "2 images" in opened("sample", f"run.directory={run}", *choice)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["parameterization.variance=learned"], "objective=SimpleLoss trains with .*small or large, got learned"),
        (["objective=hybrid"], "objective=Hybrid trains with parameterization.variance=learned, got large"),
        (["objective=variational_bound", "objective.weight=0"], r"objective\.weight must be positive, got 0"),
    ],
)
def test_an_objective_that_cannot_train_the_variance_is_refused_before_training(digits, tmp_path, arguments, said):
    text = opened(
        "train", *SMALL, f"data.shards={digits}/train", f"run.directory={tmp_path}", *arguments, status=1
    )
    assert re.search(said, text), text


def test_a_run_whose_pixels_are_not_from_minus_1_to_1_is_refused():
    with pytest.raises(ValueError, match=r"of 256 values in \[-1, 1\].*got PixelRange\(mean=0\.0, deviation=255"):
        check_decoder(Run(pixels=PixelRange.unit), "bits/dim")


def test_a_run_on_a_ladder_is_refused():
    ladder = Run(
        process=NoiseLadder(),
        parameterization=Score(),
        objective=DenoisingScoreMatching(),
        sampler=AnnealedLangevin(),
        preview=PreviewConfig(every=0),
    )
    with pytest.raises(ValueError, match="bits/dim needs a GaussianProcess, got process=NoiseLadder"):
        check_decoder(ladder, "bits/dim")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shards=nowhere"], "nowhere"),
        (["count=1000000"], "count must be at most 355, the images in"),
        (["floor=1"], r"floor must lie in [0, 1), got 1"),
        (["checkpoint=65"], "no checkpoint after 65 images"),
    ],
)
def test_what_is_not_there_is_named(finished, digits, arguments, said):
    text = opened("bits", f"run.directory={finished}", f"shards={digits}/test", *arguments, status=1)
    assert said in text


def test_the_probability_flow_gives_a_likelihood_beside_the_bound(finished, digits):
    found = bits(finished, digits / "test", "flow=10")
    assert 0 < found["flow_bits_per_dim"] < 20
    assert found["flow_standard_error"] > 0
    assert "flow_bits_per_dim" not in bits(finished, digits / "test")
    text = opened("bits", f"run.directory={finished}", f"shards={digits}/test", "flow=-1", status=1)
    assert "flow must be at least 0, got -1" in text
