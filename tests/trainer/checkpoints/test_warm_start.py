"""Warm starts: the weights of another run or of a file, whatever the engine holds of them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tests.trainer.checkpoints import cuts
from tests.trainer.checkpoints.cuts import begin
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.checkpoints.warm_start import WarmStart


@pytest.fixture
def source(tmp_path):
    """The directory of a run with one checkpoint, and a file of its first average."""
    cuts.saved(Checkpoints(tmp_path / "source" / "checkpoints"), cuts.state("rows", 0, 1, seed=1))
    average = {name: cuts.whole("ema-100.0", name, 1) for name in cuts.SHAPES}
    save_file(average, tmp_path / "weights.safetensors")
    return tmp_path


@pytest.mark.parametrize("path", ["source", "source/checkpoints/000000000008", "weights.safetensors"])
@pytest.mark.parametrize("kind", ["replicated", "rows", "stretches"])
def test_each_rank_gets_its_part_of_the_weights_and_nothing_else_changes(source, path, kind):
    for rank in range(3):
        begun, untouched = (cuts.state(kind, rank, 3, seed=2) for _ in range(2))
        begin(begun, source / path)
        for name, shard in begun.engine.shards().items():
            expected = cuts.whole("ema-100.0", name, 1).flatten()[shard.start : shard.stop]
            assert torch.equal(shard.tensor, expected)
            for half_life in cuts.HALF_LIVES:
                assert torch.equal(begun.ema.shards(half_life)[name].tensor, expected)
        for moment in ("exp_avg", "exp_avg_sq", "steps"):
            for name, shard in begun.engine.state()[moment].items():
                assert torch.equal(shard.tensor, untouched.engine.state()[moment][name].tensor)
        assert (begun.images, begun.cursor) == (untouched.images, untouched.cursor)


def test_another_average_is_chosen_by_its_half_life(source):
    begun = cuts.state("rows", 0, 1, seed=2)
    begin(begun, source / "source", 5000.0)
    assert torch.equal(begun.engine.shards()["scale"].whole, cuts.whole("ema-5000.0", "scale", 1))


def test_a_checkpoint_of_its_own_comes_first(source, tmp_path):
    checkpoints = Checkpoints(tmp_path / "own")
    begun = checkpoints.restore(cuts.state("rows", 0, 1, seed=2), WarmStart(str(source / "source")))
    assert begun.engine.refreshed == 1
    assert torch.equal(begun.engine.shards()["scale"].whole, cuts.whole("ema-100.0", "scale", 1))
    cuts.saved(checkpoints, cuts.state("rows", 0, 1, seed=3))
    resumed = checkpoints.restore(cuts.state("rows", 0, 1, seed=2), WarmStart("/gone"))
    assert cuts.wrong(resumed, seed=3) == []


@pytest.mark.parametrize(
    ("path", "half_life", "said"),
    [
        ("nowhere", 0, r"nowhere: it is no run directory, no checkpoint and no \.safetensors file"),
        ("source", 7, "no average with the half-life 7; it holds 100, 5000"),
        ("weights.safetensors", 100, "one set of weights, none of which warm_start.half_life=100 could choose"),
        ("empty", 0, "holds no checkpoint"),
        ("text", 0, "is no whole safetensors file"),
        ("half.safetensors", 0, r"is no whole safetensors file of float32: a tensor is of the type F16"),
        ("other.safetensors", 0, r"another architecture: parameters 'scale' has the shape \(2,\) there and \(\)"),
        ("fewer.safetensors", 0, r"another architecture: parameters 'in\.bias' is only in the configured network"),
    ],
)
def test_what_cannot_be_begun_with_is_refused_before_anything_is_overwritten(source, path, half_life, said):
    weights = {name: cuts.whole("parameters", name, 1) for name in cuts.SHAPES}
    (source / "empty" / "checkpoints").mkdir(parents=True)
    (source / "text").write_text("weights")
    save_file({name: each.half() for name, each in weights.items()}, source / "half.safetensors")
    save_file({**weights, "scale": torch.zeros(2)}, source / "other.safetensors")
    save_file({"in.weight": weights["in.weight"]}, source / "fewer.safetensors")
    state = cuts.state("rows", 0, 1, seed=2)
    with pytest.raises(ValueError, match=said) as refused:
        begin(state, source / path, half_life)
    assert f"warm_start.path={source / path}: " in str(refused.value)
    assert cuts.wrong(state, seed=2) == []


def test_weights_that_are_not_finite_are_refused_by_name(source):
    weights = {name: cuts.whole("parameters", name, 1) for name in cuts.SHAPES}
    save_file({**weights, "scale": torch.tensor(float("nan"))}, source / "nan.safetensors")
    with pytest.raises(ValueError, match=r"nan\.safetensors: the weights of 'scale' are not all finite"):
        begin(cuts.state("rows", 0, 1, seed=2), source / "nan.safetensors")


@pytest.mark.parametrize("path", ["source", "weights.safetensors"])
def test_another_source_than_was_found_is_refused(source, path):
    warm_start, state = WarmStart(str(source / path)), cuts.state("rows", 0, 1, seed=2)
    found = warm_start.find()
    file = found.path / "manifest.json" if found.path.is_dir() else found.path
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"is not, or no longer, what the first rank found there"):
        warm_start.begin(state, found)
    assert cuts.wrong(state, seed=2) == []
