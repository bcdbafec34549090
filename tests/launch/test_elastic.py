"""A run is one curve, whatever engine and however many ranks make its steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.elastic.scenario import Place, apart, average, losses

# Each engine is stopped at and gone on with, and the number of ranks and of micro-batches changes both ways.
CHAIN = (
    Place("zero3", 2),
    Place("fsdp", 3),
    Place("local", 1),
    Place("zero1", 2, accumulation=2),
    Place("zero2", 3),
    Place("ddp", 2, accumulation=3),
    Place("fsdp", 2),
    Place("zero3", 3),
)
STEPS = 3


@pytest.fixture(scope="module")
def spec(digits, tmp_path_factory) -> Path:
    """The same steps by the local engine alone."""
    directory = tmp_path_factory.mktemp("spec")
    Place("local", 1).train(directory, STEPS * len(CHAIN), f"data.shards={digits}/train")
    return directory


def test_a_run_that_changes_its_engine_at_every_stop_is_the_local_engines_curve(digits, spec, tmp_path):
    for number, place in enumerate(CHAIN, start=1):
        place.train(tmp_path, STEPS * number, f"data.shards={digits}/train")
    assert len(losses(tmp_path)) == STEPS * len(CHAIN)
    assert apart(losses(tmp_path), losses(spec)) < 1e-5
    found = average(tmp_path)
    for name, weight in average(spec).items():
        assert torch.allclose(found[name], weight, rtol=0, atol=1e-5), name
