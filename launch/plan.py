"""python -m launch.plan experiment=NAME ranks=N engine=NAME: what a run would take; the last line is JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door

if TYPE_CHECKING:
    from configs.doors import PlanConfig

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="plan")
@door
def main(config: DictConfig) -> int:
    """Plans the run and prints a table, then the same as JSON."""
    from dataclasses import asdict

    from configs.runs import choices, to_value
    from trainer.plans.plan import Cluster, planned
    from trainer.plans.table import table

    chosen = to_value(config)
    engine = choices(chosen)["engine"]
    cluster = Cluster(chosen.ranks, chosen.ranks_per_node, chosen.device)
    plan = planned(chosen, cluster, shards(chosen), chosen.steps)
    print(table(plan, engine))
    print(json.dumps({"engine": engine, **asdict(plan)}, default=lambda value: value.name))
    return 0


def shards(chosen: PlanConfig) -> list[int]:
    """How many samples each shard holds: those of data.shards if they are here; none where samples are drawn."""
    from pathlib import Path

    from data_pipeline.config import DataConfig
    from data_pipeline.shards import ShardSet
    from trainer.plans.reading import even

    if not isinstance(chosen.data, DataConfig):
        return []
    if Path(chosen.data.shards).is_dir():
        return ShardSet.open(chosen.data.shards).sizes
    return even(chosen.samples, chosen.samples_per_shard)


if __name__ == "__main__":
    main()
