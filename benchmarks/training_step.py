"""A training step of the CIFAR-10 network: ours against diffusers' model and averages in their loop.

Both see the same images and make the same step: noise, forward, backward, clip, Adam, average.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.nn import functional

from benchmarks.interleave import interleave, publish, ratio
from data_pipeline.stream import Batch
from models.diffusion import Diffusion
from models.networks.unet import UNetConfig
from models.objectives import SimpleLoss
from models.parameterizations import Epsilon
from models.processes import GaussianProcess
from trainer.distributed import World
from trainer.ema import Ema
from trainer.engines.engine import Precision
from trainer.engines.local import LocalConfig
from trainer.loop import train_step
from trainer.optimizers import OptimizerConfig


def ours(batch: int, precision: Precision = Precision.bf16) -> Callable[[], object]:
    """Our step, at the default precision unless another is asked for."""
    engine = LocalConfig(precision=precision).build(
        lambda: UNetConfig().build(3, 32), OptimizerConfig(), 0, World()
    )
    diffusion, objective = Diffusion(GaussianProcess(), Epsilon(), engine), SimpleLoss()
    ema = Ema(engine.shards(), [887184])
    x = torch.randint(256, (batch, 3, 32, 32), dtype=torch.uint8)
    data = Batch(x, None, torch.arange(batch), batch, batch)

    def step() -> None:
        train_step(engine, diffusion, objective, data, 2e-4, 0)
        ema.update(batch)

    return step


def theirs(batch: int, bf16: bool) -> Callable[[], object]:
    """The step of diffusers' unconditional training example."""
    network = UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_eps=1e-6,
        attention_head_dim=None,
        downsample_padding=0,
        freq_shift=1,
        flip_sin_to_cos=False,
        dropout=0.1,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4, weight_decay=0.0)
    ema, scheduler = EMAModel(network.parameters(), decay=0.9999, min_decay=0.9999), DDPMScheduler()
    x = torch.rand(batch, 3, 32, 32) * 2 - 1

    def step() -> None:
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (batch,))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = network(scheduler.add_noise(x, noise, t), t).sample
            loss = functional.mse_loss(output.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(network.parameters())

    return step


def main() -> None:
    """Three ways, turn by turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    ways = {
        "ours": ours(options.batch),
        "fp32": theirs(options.batch, bf16=False),
        "bf16": theirs(options.batch, bf16=True),
    }
    seconds = interleave(ways, options.turns)
    claim = f"training step, CIFAR-10 U-Net, batch {options.batch}, bf16"
    publish(
        f"training_step_{options.batch}",
        [
            ratio(claim, "diffusers, fp32 as shipped", 2.6, seconds["fp32"], seconds["ours"]),
            ratio(claim, "diffusers, bf16 autocast", 1.05, seconds["bf16"], seconds["ours"]),
        ],
    )


if __name__ == "__main__":
    main()
