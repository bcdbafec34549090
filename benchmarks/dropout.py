"""Dropout keyed by (seed, sample, layer) against dropout from torch's one generator, within a training step."""

from __future__ import annotations

import argparse
from unittest import mock

import torch
from torch import Tensor

from benchmarks.interleave import interleave, publish, ratio
from benchmarks.training_step import ours
from models.networks.dropout import Dropout
from trainer.engines.engine import Precision


def of_one_generator(layer: Dropout, x: Tensor) -> Tensor:
    """The same dropout by numbers of torch's generator, as many for an element."""
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    lanes = words.view(torch.int16)[: x.numel()].view(x.shape)
    return x.masked_fill(lanes < layer.dropped - 2**15, 0) * (1 / (1 - layer.dropped / 2**16))


def main() -> None:
    """One step of the CIFAR-10 network, both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--precision", choices=[one.name for one in Precision], default="bf16")
    options = parser.parse_args()
    step = ours(options.batch, Precision[options.precision])

    def with_generator() -> None:
        with mock.patch.object(Dropout, "forward", of_one_generator):
            step()

    seconds = interleave({"keyed": step, "generator": with_generator}, options.turns)
    claim = f"training step with keyed dropout, batch {options.batch}, {options.precision}"
    publish("dropout", [ratio(claim, "one generator", 0.97, seconds["generator"], seconds["keyed"])])


if __name__ == "__main__":
    main()
