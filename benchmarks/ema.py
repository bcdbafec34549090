"""The update of an average of the weights: ours against diffusers' EMAModel and a loop over parameters.

The loop is the one that most ports of DDPM to torch contain: average ← average · decay + weight · (1 - decay).
"""

from __future__ import annotations

import argparse

import torch
from diffusers.training_utils import EMAModel

from benchmarks.interleave import interleave, publish, ratio
from models.networks.unet import UNetConfig
from trainer.ema import Ema
from trainer.engines.local import flatten, wholes

DECAY = 0.9999


def main() -> None:
    """Both networks' sizes, three ways each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=25)
    options = parser.parse_args()
    ratios = []
    for millions, config, size in (
        ("35.7", UNetConfig(), 32),
        ("113.7", UNetConfig(multipliers=[1, 1, 2, 2, 4, 4]), 256),
    ):
        network = config.build(3, size)
        flatten(network)  # as the engine does
        weights = {name: parameter.detach() for name, parameter in network.named_parameters()}
        ours, theirs = Ema(wholes(weights), [887184]), EMAModel(network.parameters(), decay=DECAY, min_decay=DECAY)
        loop = [weight.clone() for weight in weights.values()]

        @torch.no_grad()
        def by_loop(loop: list[torch.Tensor] = loop, weights: dict[str, torch.Tensor] = weights) -> None:
            for average, weight in zip(loop, weights.values(), strict=True):
                average.copy_(average * DECAY + weight * (1 - DECAY))

        ways = {
            "ours": lambda ours=ours, weights=weights: ours.update(128),
            "EMAModel": lambda theirs=theirs, network=network: theirs.step(network.parameters()),
            "loop": by_loop,
        }
        seconds = interleave(ways, options.turns)
        claim = f"EMA update, {millions} M parameters"
        ratios.append(ratio(claim, "diffusers EMAModel", 2.7, seconds["EMAModel"], seconds["ours"]))
        ratios.append(ratio(claim, "python loop", 3.8, seconds["loop"], seconds["ours"]))
    publish("ema", ratios)


if __name__ == "__main__":
    main()
