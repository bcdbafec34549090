"""The samples of a probe: those of one process, bit for bit, and as many calls of the network on every rank."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from data_pipeline.stream import DataConfig
from models.networks.unet import UNetConfig
from models.samplers import Ddim
from tests.trainer import tiny
from tests.trainer.ranks import on_ranks
from trainer.distributed import World
from trainer.generator import Generator
from trainer.monitor import Monitor
from trainer.probes import SampleGrid, shared
from trainer.run import PreviewConfig, Run, RunConfig

COUNTS = (5, 40, 64)


def counted() -> tuple[object, list]:
    """An engine with the network of ddpm_digits, and a list that grows with each call of it."""
    config = UNetConfig(32, [1, 2], blocks=1, attention=[4], dropout=0.0, groups=8)
    engine, calls = tiny.engine(lambda: config.build(1, 8)), []
    engine.network.eval().register_forward_pre_hook(lambda module, given: calls.append(tuple(given[0].shape)))
    return engine, calls


def drawn(world: World, directory: str) -> tuple[dict[int, torch.Tensor], list]:
    engine, calls = counted()
    generator = Generator(tiny.diffusion(engine), Ddim(steps=2, clip=False), (1, 8, 8), 0, tiny.CPU)
    samples = {count: shared(generator, count, world) for count in COUNTS}
    Path(directory).mkdir(exist_ok=True)
    run = Run(
        RunConfig(directory), DataConfig("none", resolution=8, channels=1), preview=PreviewConfig(100, 20, Ddim(2))
    )
    with Monitor(run, world, 0, tiny.CPU) as monitor, engine.lend(engine.shards()), torch.no_grad():
        SampleGrid(run, world)(tiny.diffusion(engine), monitor, 100)
    return samples, calls


def test_ranks_draw_what_one_process_draws_and_share_the_work(tmp_path):
    samples, calls = drawn(World(), str(tmp_path / "one"))
    ranks = on_ranks(2, drawn, str(tmp_path / "two"))
    for found, their_calls in ranks:
        assert all((found[count] == samples[count].numpy()).all() for count in COUNTS)
        assert their_calls == ranks[0][1], "a collective engine would wait for ever"
    assert (max(calls)[0], max(ranks[0][1])[0]) == (64, 32)
    pictures = [Image.open(tmp_path / each / "samples" / "000000000100.png") for each in ("one", "two")]
    assert pictures[0].tobytes() == pictures[1].tobytes()
