"""A run's averaged weights as a diffusion to draw from, without an optimizer or gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.diffusion import Chain
from trainer.checkpoints.average import load_average
from trainer.engines.engine import Precision
from trainer.run import Run


class InferenceNetwork:
    """A network with fixed weights, called as the engine is, and with images of any precision.

    Gradients are of its input alone, for whoever asks for them.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision) -> None:
        self.network = network.eval().requires_grad_(False)
        self.device, self.autocast = device, precision is Precision.bf16

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            output: Tensor = self.network(x.float(), t, condition)
        return output


def averaged_diffusion(run: Run, checkpoint: Path, half_life: float, device: torch.device) -> Chain:
    """The run's diffusion over the average of `half_life` in a checkpoint; 0 takes the run's first."""
    with torch.device("meta"):
        network = run.build_network()
    shards = dict(network.named_parameters())
    weights = load_average(checkpoint, half_life or run.ema.half_lives[0], shards)
    network.load_state_dict(weights, assign=True)
    callable_network = InferenceNetwork(network.to(device), device, run.engine.precision)
    return run.diffusion(callable_network)
