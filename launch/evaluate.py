"""python -m launch.evaluate run.directory=DIR held_out=SHARDS: scores a run; the last line is one JSON object."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door
from launch.score import keep

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
@door
def main(config: DictConfig) -> int:
    """Scores what the run draws, or the bound K; keeps the score under metrics/ and prints it.

    Where the run knows classes, they are drawn in the proportions of its own data.
    """
    import torch

    from configs.runs import to_value
    from launch.restored import Restored
    from models.classes import Shares
    from trainer.metrics.bound import evaluate_bound, is_scored_by_bound, unseen
    from trainer.metrics.evaluation import evaluate, read_labels

    chosen = to_value(config)
    asked = chosen.trajectories, chosen.any_moments
    restored = Restored.of(chosen)
    run, generator = restored.run, restored.generator
    if is_scored_by_bound(run):
        run.check_without_class("the bound K")
        data = unseen(run, chosen.held_out, chosen.count)
        score = evaluate_bound(run, generator.diffusion, generator.device, data, chosen.batch, *asked)
    elif chosen.held_out:
        if run.network.known_classes:
            restored = restored.of_classes(Shares.of(read_labels(run.data, run.data.shards)))
        score = evaluate(
            run.data,
            chosen.held_out,
            lambda count: torch.cat(list(restored.batches(0, count, chosen.batch))),
            chosen.count,
            restored.generator.classes,
        )
    else:
        raise ValueError("held_out must be given: add held_out=… to the command")
    score |= restored.provenance()
    choices = [restored.provenance(), chosen.held_out, *asked, score["images"]]
    keep(score, run.directory, restored.checkpoint.name, choices)
    return 0


if __name__ == "__main__":
    main()
