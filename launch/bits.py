"""python -m launch.bits run.directory=DIR shards=SHARDS: a run's bits/dim; the last line is one JSON object."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door
from launch.score import keep

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="bits")
@door
def main(config: DictConfig) -> int:
    """Takes the bound of the images under the run's average, keeps it under metrics/ and prints it."""
    import torch
    from tqdm import tqdm

    from configs.runs import to_value
    from launch.restored import Averaged
    from models.likelihood import Likelihood, fewer_times
    from models.noise import Noise
    from trainer.metrics.bits_per_dim import bits_per_dim, bound_of, first_images

    chosen = to_value(config)
    likelihood = Likelihood(floor=chosen.floor, clip=chosen.clip)
    of = Averaged.of(chosen)
    of.check_pixels("bits/dim")
    times = fewer_times(of.run.process.steps, chosen.steps, chosen.power)
    images = first_images(of.run.data, chosen.shards, chosen.count)
    noise = Noise(chosen.seed, torch.arange(len(images), device=of.device))
    with tqdm(total=len(images), desc="bound", unit="img", disable=None) as bar:
        bound = bound_of(of.diffusion, likelihood, images, noise, chosen.batch, bar.update, times)
    provenance = {
        "run": str(of.run.directory),
        "checkpoint": of.checkpoint.name,
        "ema_half_life": of.half_life,
        "parameterization": repr(of.run.parameterization),
        "shards": chosen.shards,
        "steps": chosen.steps,
        "power": chosen.power,
        "clip": chosen.clip,
        "floor": chosen.floor,
        "seed": chosen.seed,
    }
    score = bits_per_dim(bound, of.run.shape) | provenance
    keep(score, of.run.directory, f"bits-{of.checkpoint.name}", [provenance, len(images)])
    return 0


if __name__ == "__main__":
    main()
