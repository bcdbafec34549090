"""A short run on the digits by class: what it is asked for is what a classifier of real digits sees."""

from __future__ import annotations

import pytest
import torch

from data_pipeline.config import DataConfig
from data_pipeline.sources import Digits
from data_pipeline.write import write_shards
from models.guidance import guided
from models.samplers import Ddim
from tests.test_experiments import composed
from trainer.averaged import averaged_diffusion
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.distributed import World
from trainer.generator import Generator
from trainer.interruption import Interruption
from trainer.loop import train
from trainer.metrics.classifier import accuracy
from trainer.metrics.evaluation import LabelledImages, Yardstick


@pytest.mark.slow
def test_images_of_a_class_are_of_that_class_and_guidance_makes_them_more_so(tmp_path):
    shards, device = str(tmp_path / "shards"), torch.device("cpu")
    write_shards(Digits("train"), tmp_path / "shards")
    run = composed(
        "ddpm_digits_classes",
        f"run.directory={tmp_path / 'run'}",
        f"data.shards={shards}",
        "data.batch=32",
        "run.images=24_000",
        "optimizer.warmup_images=2_000",
        "ema.half_lives=[2_000]",
        "preview.every=0",
    )
    train(run, World(), Interruption())
    diffusion = averaged_diffusion(run, Checkpoints(run.checkpoints()).latest(), 2_000, device)
    judge = Yardstick.of(LabelledImages.read(DataConfig(shards, resolution=8, channels=1), shards)).classifier
    named = []
    for weight in (0.0, 1.0):
        draws = Generator(guided(diffusion, weight), Ddim(20), run.shape, 0, device, run.every_class)
        named.append(accuracy(judge, draws.images(0, 200), run.every_class(torch.arange(200))))
    assert named[0] > 0.7
    assert named[1] > 0.9
    assert named[1] > named[0]
