"""python -m launch.evaluate run.directory=DIR held_out=SHARDS: scores a run; the last line is one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door
from launch.score import keep

if TYPE_CHECKING:
    from configs.doors import EvaluateConfig
    from launch.restored import Restored

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
@door
def main(config: DictConfig) -> int:
    """Scores what the run draws, or the bound K; keeps the score under metrics/ and prints it."""
    from configs.runs import to_value
    from launch.restored import Restored
    from trainer.metrics.bound import is_scored_by_bound

    chosen = to_value(config)
    restored = Restored.of(chosen)
    if is_scored_by_bound(restored.run):
        score = score_of_bound(restored, chosen)
    else:
        restored = in_proportion(restored)
        score = score_of_images(restored, chosen)
    score |= restored.provenance()
    options = [chosen.held_out, chosen.trajectories, chosen.any_moments, chosen.parzen, score["images"]]
    keep(score, restored.run.directory, restored.checkpoint.name, [restored.provenance(), *options])
    return 0


def score_of_bound(restored: Restored, chosen: EvaluateConfig) -> dict[str, object]:
    """K of data that training did not see; and the Parzen-window estimate from samples, where it is asked for."""
    import torch

    from trainer.metrics.bits_per_dim import first_images
    from trainer.metrics.bound import evaluate_bound, unseen
    from trainer.metrics.parzen import parzen_window

    run, generator = restored.run, restored.generator
    run.check_without_class("the bound K")
    if chosen.parzen and not run.data.pixels:
        raise ValueError(f"parzen is of images as bytes, got data={type(run.data).__name__}")
    data = unseen(run, chosen.held_out, chosen.count)
    score = evaluate_bound(
        run, generator.diffusion, generator.device, data, chosen.batch, chosen.trajectories, chosen.any_moments
    )
    if chosen.parzen:
        samples = torch.cat(list(restored.batches(0, chosen.parzen, chosen.batch)))
        score |= parzen_window(samples, first_images(run.data, chosen.held_out, chosen.count))
    return score


def in_proportion(restored: Restored) -> Restored:
    """The run, drawing classes in the proportions of its own data, where it knows some."""
    from models.classes import Shares
    from trainer.metrics.evaluation import read_labels

    data = restored.run.data
    if not restored.run.network.known_classes:
        return restored
    return restored.of_classes(Shares.of(read_labels(data, data.shards)))


def score_of_images(restored: Restored, chosen: EvaluateConfig) -> dict[str, object]:
    """How near samples are to held-out images."""
    import torch

    from trainer.metrics.evaluation import evaluate

    if not chosen.held_out:
        raise ValueError("held_out must be given: add held_out=… to the command")
    return evaluate(
        restored.run.data,
        chosen.held_out,
        lambda count: torch.cat(list(restored.batches(0, count, chosen.batch))),
        chosen.count,
        restored.generator.classes,
    )


if __name__ == "__main__":
    main()
