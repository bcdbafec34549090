"""A run that knows classes, from its training to its images by class, at every door."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.sources import Digits
from tests.launch.doors import SMALL, opened


@pytest.fixture(scope="module")
def classed(digits, tmp_path_factory) -> Path:
    """The directory of a small run on the digits by class; read-only."""
    directory = tmp_path_factory.mktemp("classed")
    known = ["data.labels=true", "network.classes=10", "preview.every=320", "preview.sampler.steps=2"]
    opened("train", *SMALL, f"data.shards={digits}/train", f"run.directory={directory}", *known)
    return directory


def drawn(directory: Path, out: Path, *more: str) -> dict[str, np.ndarray]:
    opened("sample", f"run.directory={directory}", f"out={out}", *more)
    return {path.name: np.asarray(Image.open(path)) for path in sorted(out.glob("0*.png"))}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[bool]:
    assert one.keys() == other.keys()
    return [np.array_equal(one[name], other[name]) for name in one]


def test_the_preview_has_a_row_for_each_class(classed):
    assert Image.open(classed / "samples" / "000000000320.png").size == (7 * 33 + 1, 10 * 33 + 1)


def test_the_classes_of_images_go_round_and_an_image_depends_on_its_own_alone(classed, tmp_path):
    every = drawn(classed, tmp_path / "all", "count=24")
    assert Image.open(tmp_path / "all" / "grid.png").size == (3 * 33 + 1, 10 * 33 + 1)
    three = drawn(classed, tmp_path / "three", "count=24", "classes=[3]", "batch=7")
    assert [number for number, alike in enumerate(same(every, three)) if alike] == [3, 13, 23]
    two = drawn(classed, tmp_path / "two", "count=24", "classes=[0,3]")
    assert [number for number, alike in enumerate(same(two, three)) if alike] == list(range(1, 24, 2))


def test_guidance_changes_the_images_and_is_remembered(classed, tmp_path):
    plain = drawn(classed, tmp_path / "plain", "count=4", "classes=[3]", "guidance=0")
    led = drawn(classed, tmp_path / "led", "count=4", "classes=[3]", "guidance=2.0")
    assert not any(same(plain, led))
    note = json.loads((tmp_path / "led" / "provenance.json").read_text())
    assert (note["classes"], note["guidance"]) == ("Cycle(classes=(3,))", 2.0)
    more = [f"run.directory={classed}", f"out={tmp_path / 'led'}", "count=1", "classes=[3]"]
    assert "holds images of another guidance: 2.0, not 0.0" in opened("sample", *more, status=1)


def test_evaluate_draws_the_classes_of_the_data_and_scores_how_many_are_named_so(classed, digits):
    text = opened(
        "evaluate", f"run.directory={classed}", f"held_out={digits}/test", "sampler.steps=5", "guidance=1"
    )
    score = json.loads(text.strip().splitlines()[-1])
    counts = tuple(np.bincount(Digits("train")._labels).tolist())
    assert score["classes"] == f"Shares(counts={counts})"
    assert score["guidance"] == 1.0
    assert 0 <= score["named_as_asked"] <= 1


@pytest.mark.parametrize(
    ("run", "arguments", "said"),
    [
        ("classed", ["classes=[3,10]"], "classes must be of those that the run knows, 0 .. 9, got 10"),
        ("classed", ["classes=[-1]"], "classes must be of those that the run knows, 0 .. 9, got -1"),
        ("classed", ["classes=some"], "classes must be all, or a list of class numbers such as [3,5], got some"),
        ("classed", ["classes=[]"], "classes must be all, or a list of class numbers such as [3,5], got []"),
        ("classed", ["guidance=-1"], "guidance must be at least 0, got -1"),
        (
            "finished",
            ["classes=[3]"],
            "classes must be of those that the run knows, none (network.classes=0), got 3",
        ),
        ("finished", ["guidance=2"], "guidance=2 is towards a class, and the run knows none (network.classes=0)"),
    ],
)
def test_what_a_run_does_not_know_is_named(request, tmp_path, run, arguments, said):
    directory = request.getfixturevalue(run)
    assert said in opened("sample", f"run.directory={directory}", f"out={tmp_path}", *arguments, status=1)


def test_a_run_that_never_hid_a_label_cannot_be_guided(digits, tmp_path):
    known = ["data.labels=true", "network.classes=10", "objective.label_dropout=0", "run.images=16"]
    opened("train", *SMALL, f"data.shards={digits}/train", f"run.directory={tmp_path / 'run'}", *known)
    more = [f"run.directory={tmp_path / 'run'}", f"out={tmp_path / 'out'}", "count=1"]
    assert "1 images" in opened("sample", *more)
    assert "its objective.label_dropout is 0" in opened("sample", *more, "guidance=1", status=1)


def test_more_classes_in_the_shards_than_in_the_network_are_refused(digits, tmp_path):
    known = ["data.labels=true", "network.classes=9"]
    text = opened("train", *SMALL, f"data.shards={digits}/train", f"run.directory={tmp_path}", *known, status=1)
    assert "has 10 classes, more than network.classes=9" in text
