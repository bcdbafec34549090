"""python -m launch.bits run.directory=DIR shards=SHARDS: a run's bits/dim; the last line is one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door
from launch.score import keep

if TYPE_CHECKING:
    from launch.restored import Averaged

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="bits")
@door
def main(config: DictConfig) -> int:
    """Takes the bound of the images under the run's average, keeps it under metrics/ and prints it."""
    import torch
    from tqdm import tqdm

    from configs.runs import to_value
    from launch.restored import Averaged
    from models.likelihood import Likelihood
    from models.noise import Noise
    from trainer.metrics.bits_per_dim import bits_per_dim, bound_of, first_images

    chosen = to_value(config)
    likelihood = Likelihood(floor=chosen.floor, clip=chosen.clip)
    of = Averaged.of(chosen)
    check(of)
    images = first_images(of.run.data, chosen.shards, chosen.count)
    noise = Noise(chosen.seed, torch.arange(len(images), device=of.device))
    with tqdm(total=len(images), desc="bound", unit="img", disable=None) as bar:
        bound = bound_of(of.diffusion, likelihood, images, noise, chosen.batch, bar.update)
    provenance = {
        "run": str(of.run.directory),
        "checkpoint": of.checkpoint.name,
        "ema_half_life": of.half_life,
        "parameterization": repr(of.run.parameterization),
        "shards": chosen.shards,
        "clip": chosen.clip,
        "floor": chosen.floor,
        "seed": chosen.seed,
    }
    score = bits_per_dim(bound, of.run.shape) | provenance
    keep(score, of.run.directory, f"bits-{of.checkpoint.name}", [provenance, len(images)])
    return 0


def check(of: Averaged) -> None:
    """Raises ValueError for a run that has no bits/dim."""
    from models.diffusion import Diffusion
    from models.pixels import PixelRange

    if not (of.run.data.pixels and isinstance(of.diffusion, Diffusion)):
        raise ValueError(
            "bits/dim is of images under a chain that goes through x̂_0, got "
            f"data={type(of.run.data).__name__} and parameterization={type(of.run.parameterization).__name__}"
        )
    if of.run.pixels != PixelRange.signed:
        raise ValueError(
            f"bits/dim is of 256 values in [-1, 1], from pixels.mean=127.5 and pixels.deviation=127.5, got "
            f"{of.run.pixels}"
        )


if __name__ == "__main__":
    main()
