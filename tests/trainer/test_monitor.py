"""The monitor: means by quarter of t, a loss that is no number, and no step that waits for the host."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_pipeline.stream import DataConfig
from models.objectives import SimpleLoss, Terms
from tests.trainer import tiny
from tests.trainer.no_sync import HostWaited, no_sync
from trainer.distributed import World
from trainer.loop import train_step
from trainer.monitor import Monitor, Report, Tally
from trainer.run import Run, RunConfig


def terms(loss: list[float], t: list[int]) -> Terms:
    return Terms(torch.tensor(loss), torch.tensor(t))


@given(
    some.integers(4, 1000),
    some.lists(some.lists(some.tuples(some.floats(0, 10, width=32), some.floats(0, 1)), min_size=1), min_size=1),
)
def test_means_are_numpys_in_all_and_by_quarter(steps, batches):
    moments = Tally(steps, tiny.CPU)
    losses, times, norms = [], [], []
    for number, batch in enumerate(batches):
        loss, t = [loss for loss, _ in batch], [1 + min(int(share * steps), steps - 1) for _, share in batch]
        moments.add(terms(loss, t), torch.tensor(float(number)))
        losses, times, norms = losses + loss, times + t, [*norms, number]
    found, losses, times = moments.scalars(), np.array(losses), np.array(times)
    expected = {"loss": losses.mean(), "gradient_norm": np.mean(norms)}
    for quarter in range(1, 5):
        # Quarter q holds the t with (q - 1) / 4 < t / T <= q / 4, where T divides by 4.
        belongs = (4 * (times - 1) >= (quarter - 1) * steps) & (4 * (times - 1) < quarter * steps)
        if belongs.any():
            expected[f"loss_by_t/quarter_{quarter}"] = losses[belongs].mean()
    assert found.keys() == expected.keys()
    assert all(found[tag] == pytest.approx(value, rel=1e-12) for tag, value in expected.items())


def test_a_look_clears_the_sums():
    moments = Tally(1000, tiny.CPU)
    moments.add(terms([100.0, 200.0], [1, 1000]), torch.tensor(50.0))
    moments.scalars()
    moments.add(terms([1.0], [500]), torch.tensor(2.0))
    assert moments.scalars() == {"loss": 1.0, "gradient_norm": 2.0, "loss_by_t/quarter_2": 1.0}


@pytest.fixture
def run(tmp_path):
    return Run(
        RunConfig(str(tmp_path), images=1000, log_every=100), DataConfig("unused", resolution=8, channels=1)
    )


def report(loss: float, norm: float = 1.0) -> Report:
    return Report(terms([loss, loss], [1, 900]), torch.tensor(norm), 1e-3)


def test_tensorboard_and_the_log_hold_the_means_of_each_tick(run, tmp_path):
    with Monitor(run, World(), 0, tiny.CPU) as monitor:
        for step in range(1, 21):
            monitor.record(report(loss=float(step)), images=10 * step, batch=10, waited=0.0)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(100, 5.5), (200, 15.5)]
    assert [event.value for event in events.Scalars("learning_rate")] == pytest.approx([1e-3, 1e-3])
    assert "100/1000 images  loss 5.5000" in (tmp_path / "train.log").read_text()


def test_what_a_resumed_run_repeats_is_told_once(run, tmp_path):
    for images, losses in ((0, (1.0, 2.0, 3.0)), (100, (20.0, 30.0))):
        with Monitor(run, World(), images, tiny.CPU) as monitor:
            for number, loss in enumerate(losses, start=1):
                monitor.record(report(loss), images=images + 100 * number, batch=100, waited=0.0)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(100, 1), (200, 20), (300, 30)]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_at_the_next_tick(run, loss):
    with Monitor(run, World(), 0, tiny.CPU) as monitor:
        monitor.record(report(loss), images=10, batch=10, waited=0.0)
        with pytest.raises(FloatingPointError, match=f"the mean loss up to image 100 is {loss}"):
            monitor.record(report(1.0), images=100, batch=10, waited=0.0)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_saves(run):
    with Monitor(run, World(), 0, tiny.CPU) as monitor:
        monitor.record(report(1.0, norm=math.inf), images=10, batch=10, waited=0.0)
        with pytest.raises(FloatingPointError, match="the mean gradient_norm up to image 10 is inf"):
            monitor.look()


def test_an_infinite_loss_stays_in_its_own_quarter():
    moments = Tally(1000, tiny.CPU)
    moments.add(terms([math.inf, 2.0], [1, 1000]), torch.tensor(1.0))
    scalars = moments.scalars()
    assert (scalars["loss_by_t/quarter_1"], scalars["loss_by_t/quarter_4"]) == (math.inf, 2.0)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("clip_norm", [0.0, 1e-3])
def test_no_step_waits_for_the_host_between_ticks(run, accumulation, clip_norm):
    engine = tiny.engine(tiny.network(dropout=0.1), accumulation=accumulation, clip_norm=clip_norm)
    state = tiny.TrainState(engine, tiny.Ema(engine.shards(), [100.0, 1000.0]))
    batches, diffusion = [tiny.batch(number) for number in range(3)], tiny.diffusion(engine)
    with Monitor(run, World(), 0, tiny.CPU) as monitor, no_sync():
        for batch in batches:
            told = train_step(engine, diffusion, SimpleLoss(), batch, 1e-3, seed=0)
            state.advance(batch)
            state.ema.update(batch.global_size)
            monitor.record(told, state.images, batch.global_size, waited=0.0)


def test_a_tick_does_wait(run):
    with Monitor(run, World(), 0, tiny.CPU) as monitor, no_sync(), pytest.raises(HostWaited):
        monitor.record(report(1.0), images=100, batch=10, waited=0.0)


PLANTED = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "int": lambda x: int(x[0]),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "asarray": lambda x: np.asarray(x),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "equal": lambda x: torch.equal(x, x + 1),
    "slice by a tensor": lambda x: list(range(5))[x[0].long() :],
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_planted_wait_is_caught(planted):
    x = torch.ones(4)
    with no_sync(), pytest.raises(HostWaited):
        planted(x)


def test_a_planted_wait_in_the_network_is_caught():
    engine = tiny.engine()
    engine.network.conv_out.register_forward_hook(lambda module, inputs, output: output * output.mean().item())
    with no_sync(), pytest.raises(HostWaited):
        train_step(engine, tiny.diffusion(engine), SimpleLoss(), tiny.batch(), 1e-3, seed=0)
