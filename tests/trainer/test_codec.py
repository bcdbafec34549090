"""Sender and receiver go down one chain: the law of what is received, and files that are what they say."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from models.block_code import BlockCode
from models.diffusion import Diffusion
from models.likelihood import Likelihood
from models.noise import Noise
from models.parameterizations import Data, Variance
from models.pixels import to_unit
from models.processes import GaussianProcess
from models.range_coder import RangeReader, RangeWriter
from models.schedules import Linear
from tests.oracles import Mixture, linear_alpha_bar
from trainer.codec import Codec, Transmission

STEPS = (8, 1e-3, 0.7)
DATA = Mixture((0.3, 0.7), (-0.6, 0.5), (0.15, 0.25))
CODE = BlockCode(4.0, 9.0)


def codec(steps: int = 0, seed: int = 0, batch: int = 32, learned: bool = False, chain=STEPS) -> Codec:
    """With the optimal denoiser of the mixture."""
    network = DATA.data_network(linear_alpha_bar(*chain))
    if learned:
        diffusion = Diffusion(
            GaussianProcess(Linear(*chain)),
            Data(Variance.learned),
            lambda x, t, condition: torch.cat((network(x, t, condition), 0 * x), 1),
        )
    else:
        diffusion = Diffusion(GaussianProcess(Linear(*chain)), Data(Variance.large), network)
    return Codec(diffusion, torch.device("cpu"), steps, 1.0, batch, clip=True, seed=seed)


def images(count: int = 6, side: int = 3) -> torch.Tensor:
    values = np.random.default_rng(0).normal(DATA.means[1], DATA.stds[1], (count, 1, side, side))
    return torch.from_numpy(((values.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8))


def transmitted(of: Codec, x: torch.Tensor, sent: int, code: BlockCode = CODE) -> tuple[Transmission, bytes]:
    writer = RangeWriter()
    on = of.transmit(writer, of.begin(len(x), x.shape[1:]), sent, x, code)
    return on, writer.finish()


def received(of: Codec, data: bytes, x: torch.Tensor, sent: int, whole: bool = True) -> Transmission:
    return of.transmit(RangeReader(data, whole), of.begin(len(x), x.shape[1:]), sent)


@pytest.mark.parametrize("learned", [False, True])
def test_the_pixels_arrive_without_loss(learned):
    of, x = codec(learned=learned), images()
    on, data = transmitted(of, x, 8)
    back = received(of, data, x, 8)
    assert (on.t, back.t) == (0, 0)
    assert torch.equal(of.shown(back), x)
    assert torch.equal(of.shown(on), x)


@pytest.mark.parametrize("sent", [1, 4, 7])
def test_after_some_steps_the_receiver_is_where_the_sender_is(sent):
    of, x = codec(batch=4), images()
    on, data = transmitted(of, x, sent)
    back = received(of, data, x, sent)
    assert back.t == on.t == 8 - sent
    assert torch.equal(back.x_t, on.x_t)
    assert torch.equal(of.shown(back), of.shown(on))


def test_a_part_of_the_bytes_decodes_as_far_as_its_last_whole_step():
    of, x = codec(), images(3)
    on, data = transmitted(of, x, 8)
    lengths = np.cumsum([step.length for step in on.steps]) / 8
    seen = []
    for length in range(0, int(lengths[-2]) + 9, 4):
        back = received(of, data[:length], x, 8, whole=False)
        steps = len(back.steps)
        there, _ = transmitted(of, x, steps)
        assert torch.equal(back.x_t, there.x_t)
        assert np.searchsorted(lengths, length - 8) <= steps <= np.searchsorted(lengths, length, "right")
        seen.append(steps)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 7)
    assert len(set(seen)) > 3


@pytest.mark.parametrize("t", [6, 2])
def test_what_is_received_has_the_law_of_the_forward_process(t):
    """x_t of 400 copies of one x_0 of four elements: q(x_t | x_0), and independent of each other.

    x_T is of N(0, I) in place of q(x_T | x_0): alpha-bar_T = .018 is what that moves, and it is forgotten.
    """
    x = torch.tensor([[40, 120], [180, 250]], dtype=torch.uint8).expand(50, 1, 2, 2)
    x_0, a = to_unit(x[:1]).double(), linear_alpha_bar(*STEPS)
    ends = []
    for seed in range(8):
        on, _ = transmitted(codec(seed=seed), x, 8 - t)
        ends.append(on.x_t)
    off = (torch.cat(ends) - a[t] ** 0.5 * x_0) / (1 - a[t]) ** 0.5
    assert stats.kstest(off.flatten().numpy(), "norm").pvalue > 0.001
    for element in off.flatten(1).T:
        assert stats.kstest(element.numpy(), "norm").pvalue > 0.001
    assert np.abs(np.corrcoef(off.flatten(1).T) - np.eye(4)).max() < 4 / len(off) ** 0.5


@pytest.mark.parametrize("steps", [0, 5])
def test_the_divergences_are_those_of_the_bound_of_that_chain(steps):
    """Both are one path's of each image; the bound's with the posterior's variance, as the codec has."""
    of, x = codec(steps), images(60)
    on, _ = transmitted(of, x, len(of.times()) - 1)
    fixed = Diffusion(of.diffusion.process, Data(Variance.small), of.diffusion.network)
    bound = Likelihood(clip=True).bound(fixed, to_unit(x).double(), Noise(1, torch.arange(60)), times=of.times())
    for step, term in zip(reversed(on.steps), bound.terms.T, strict=False):
        error = 4 * float(2 * term.var() * len(term)) ** 0.5 / math.log(2)
        assert step.divergence == pytest.approx(float(term.sum()) / math.log(2), abs=error), step


def test_the_length_keeps_to_its_bound_and_the_pixels_to_their_surprise():
    """On a chain whose every step is of a few bits a number: what goes in parts, the bound leaves out."""
    of, x = codec(chain=(12, 0.05, 0.5)), images(40)
    on, data = transmitted(of, x, 12, BlockCode(4.0, 12.0))
    *steps, pixels = on.steps
    assert on.numbers["blocks_in_parts"] < on.numbers["blocks"] / 20
    assert [(step.t, step.s) for step in on.steps] == list(pairwise(range(12, -1, -1)))
    side = 8 * len(steps)  # what a step says of its blocks
    assert sum(step.divergence for step in steps) < sum(step.length for step in steps)
    assert sum(step.length for step in steps) < sum(step.bound for step in steps) + side
    assert pixels.length == pytest.approx(pixels.divergence, rel=1e-3)
    assert 8 * len(data) == pytest.approx(sum(step.length for step in on.steps), abs=16)
