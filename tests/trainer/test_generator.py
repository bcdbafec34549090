"""Generator: image number i is the same picture whatever it is drawn with."""

from __future__ import annotations

import pytest
import torch

from models.networks.unet import UNetConfig
from models.samplers import Ddim
from tests.trainer import tiny
from trainer.engines.engine import Precision
from trainer.generator import Generator


class Kept(Ddim):
    """Ddim, with its last images kept as they were before they became bytes, which hide the last bits."""

    def __call__(self, *args, **kwargs):
        self.x = super().__call__(*args, **kwargs)
        return self.x


def generator(precision: Precision = Precision.fp32, seed: int = 0) -> Generator:
    """On the network of ddpm_digits: in a smaller one, batches of any size happen to give the same bits."""
    config = UNetConfig(32, [1, 2], blocks=1, attention=[4], dropout=0.0, groups=8)
    engine = tiny.engine(lambda: config.build(1, 8), precision=precision)
    engine.network.eval()
    return Generator(tiny.diffusion(engine), Kept(steps=2, clip=False), (1, 8, 8), seed, tiny.CPU)


@pytest.mark.parametrize("precision", list(Precision))
def test_an_image_is_the_same_bits_in_any_batch(precision):
    draws = generator(precision)
    whole = draws.images(0, 40)
    exact = draws.sampler.x[:40]
    for size, starts in ((1, (0, 17, 39)), (7, range(0, 40, 7)), (16, (0, 16, 32)), (33, (0, 33))):
        for start in starts:
            rows = slice(start, min(start + size, 40))
            part = draws.images(start, rows.stop - start)
            assert torch.equal(part, whole[rows]), f"batches of {size}"
            assert torch.equal(draws.sampler.x[: len(part)], exact[rows]), f"batches of {size}"


def test_images_are_bytes_and_differ_by_number_and_by_seed():
    whole, others = generator().images(0, 20), generator(seed=1).images(0, 20)
    assert (whole.dtype, whole.shape) == (torch.uint8, (20, 1, 8, 8))
    assert len({tuple(image.flatten().tolist()) for image in (*whole, *others)}) == 40
