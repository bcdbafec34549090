"""python -m launch.ladder shards=SHARDS: the noise ladder NCSNv2 chooses; the last line is one JSON object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from configs.doors import LadderConfig

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="ladder")
@door
def main(config: DictConfig) -> int:
    """Chooses a ladder for the images, and a step size for the ladder; prints both, and the overrides they are."""
    from configs.runs import to_value
    from data_pipeline.config import DataConfig
    from models.pixels import to_unit
    from trainer.metrics.bits_per_dim import first_images

    chosen = to_value(config)
    data = DataConfig(chosen.shards, chosen.resolution, chosen.channels, crop=chosen.crop)
    images = first_images(data, chosen.shards, chosen.count)
    # In float32 the distance of images that are all alike would drown in rounding.
    found = rules(to_unit(images, chosen.pixels).double(), chosen)
    provenance = {"images": len(images), "shards": chosen.shards, "pixels": repr(chosen.pixels)}
    print(json.dumps(found | provenance))
    return 0


def rules(x: Float[Tensor, "N C H W"], chosen: LadderConfig) -> dict[str, object]:
    """What Techniques 1, 2 and 4 of Song & Ermon 2020 say of images x, under the paper's names.

    Raises ValueError where no two images are further apart than the smallest sigma.
    """
    from models.ladder import NoiseLadder, largest_distance, levels_for, overlap, step_size_for, variance_ratio

    dimension, sigma_1 = x[0].numel(), largest_distance(x)
    levels = levels_for(dimension, sigma_1, chosen.smallest, chosen.least_overlap)
    ladder = NoiseLadder(levels, sigma_1, chosen.smallest)
    epsilon = step_size_for(chosen.steps, ladder)
    # The step size is that of Algorithm 1 of 2020: a whole step.
    sampler = {"epsilon": epsilon, "steps": chosen.steps, "step": "whole"}
    overrides = {f"process.{name}": value for name, value in vars(ladder).items()} | {
        f"{place}.{name}": value for place in ("sampler", "preview.sampler") for name, value in sampler.items()
    }
    return {
        "sigma_1": sigma_1,
        "sigma_L": chosen.smallest,
        "L": levels,
        "ratio": ladder.gamma,
        "overlap": overlap(ladder.gamma, dimension),
        "epsilon": epsilon,
        "steps": chosen.steps,
        "variance_ratio": variance_ratio(epsilon, chosen.steps, ladder),
        "overrides": [f"{name}={value}" for name, value in overrides.items()],
    }


if __name__ == "__main__":
    main()
