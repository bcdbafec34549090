"""python -m launch.bits run.directory=DIR shards=SHARDS: a run's bits/dim; the last line is one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door
from launch.score import keep

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

    from configs.doors import BitsConfig
    from launch.restored import Averaged
    from models.likelihood import Likelihood

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="bits")
@door
def main(config: DictConfig) -> int:
    """Takes the likelihood of the images under the run's average, keeps it under metrics/ and prints it."""
    from configs.runs import to_value
    from launch.restored import Averaged
    from models.likelihood import Likelihood
    from trainer.metrics.bits_per_dim import check_decoder, first_images

    chosen = to_value(config)
    likelihood = Likelihood(floor=chosen.floor, clip=chosen.clip, cdf=chosen.cdf)
    of = Averaged.of(chosen)
    check_decoder(of.run, "bits/dim")
    images = first_images(of.run.data, chosen.shards, chosen.count)
    provenance = {
        **of.provenance(),
        "parameterization": repr(of.run.parameterization),
        "shards": chosen.shards,
        "likelihood": repr(likelihood),
        "steps": chosen.steps,
        "power": chosen.power,
        "flow": chosen.flow,
        "trace": chosen.trace.value,
        "seed": chosen.seed,
    }
    score = measured(of, images, likelihood, chosen) | provenance
    keep(score, of.run.directory, f"bits-{of.checkpoint.name}", [provenance, len(images)])
    return 0


def measured(
    of: Averaged, images: UInt8[Tensor, "N C H W"], likelihood: Likelihood, chosen: BitsConfig
) -> dict[str, object]:
    """The bound, and the likelihood by the probability flow where it is asked for."""
    import torch
    from tqdm import tqdm

    from models.likelihood import fewer_times
    from models.noise import Noise
    from models.probability_flow import ProbabilityFlow
    from trainer.metrics.bits_per_dim import bits_per_dim, bound_of, first_labels
    from trainer.metrics.flow import flow_bits

    labels = first_labels(of.run, chosen.shards, len(images))
    noise = Noise(chosen.seed, torch.arange(len(images), device=of.device))
    times = fewer_times(of.run.process.steps, chosen.steps, chosen.power)
    with tqdm(total=len(images), desc="bound", unit="img", disable=None) as bar:
        bound = bound_of(of.diffusion, likelihood, images, noise, chosen.batch, bar.update, times, labels)
    score = bits_per_dim(bound, of.run.shape)
    if chosen.flow:
        flow = ProbabilityFlow(chosen.trace, chosen.flow)
        with tqdm(total=len(images), desc="flow", unit="img", disable=None) as bar:
            score |= flow_bits(flow, of.diffusion, images, noise, chosen.batch, bar.update, labels)
    return score


if __name__ == "__main__":
    main()
