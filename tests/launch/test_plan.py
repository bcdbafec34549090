"""The door of plans: a table, and the same as JSON."""

from __future__ import annotations

import json

from launch.plan import shards
from tests.launch.doors import SMALL, opened
from tests.trainer.plans.test_plan import composed


def test_a_run_is_planned_without_its_data(tmp_path):
    text = opened(
        "plan", *SMALL, f"data.shards={tmp_path}/nothing", "samples=95", "samples_per_shard=10", "steps=3"
    )
    plan = json.loads(text.strip().splitlines()[-1])
    assert (plan["engine"], plan["cluster"]["ranks"], plan["batch"]) == ("local", 1, 16)
    assert plan["memory"]["device"]["weights"] == 4 * plan["parameters"]
    assert plan["memory"]["device"]["averages"] == 8 * plan["parameters"], "two half-lives"
    assert plan["checkpoint"]["total"] == 20 * plan["parameters"]
    assert plan["reading"]["shards"] == 10
    assert f"{plan['parameters']:,} parameters, engine=local, 1 ranks" in text
    assert "working copies" in text


def test_what_cannot_be_planned_is_said_in_a_line():
    assert "error: engine=local trains in one process, and 3 were" in opened("plan", "ranks=3", status=1)


def test_shards_that_are_here_are_counted_and_drawn_samples_have_none(digits):
    assert sum(shards(composed(f"data.shards={digits}/train"))) == 1442
    assert shards(composed("experiment=dpm_swiss_roll")) == []
