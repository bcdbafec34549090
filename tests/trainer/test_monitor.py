"""The monitor: what is written at each look, of all ranks, bad steps, and no step that waits for the host."""

from __future__ import annotations

import math
import re
import time
from unittest import mock

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_pipeline.stream import DataConfig
from models.objectives import SimpleLoss
from tests.trainer import tiny
from tests.trainer.no_sync import HostWaited, no_sync
from tests.trainer.ranks import on_ranks
from trainer.distributed import World
from trainer.loop import train_step
from trainer.monitor import Monitor
from trainer.run import Run, RunConfig
from trainer.tally import Report


@pytest.fixture
def run(tmp_path):
    return Run(
        RunConfig(str(tmp_path), images=1000, log_every=100), DataConfig("unused", resolution=8, channels=1)
    )


def report(loss: float, norm: float = 1.0, first: int = 0) -> Report:
    """Of two samples, `first` and the next."""
    return tiny.report([loss, loss], [1, 900], norm, [first, first + 1])


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


def test_bad_steps_are_told_and_do_not_touch_the_means(run, tmp_path):
    with Monitor(run, World(), 0, tiny.CPU) as monitor:
        monitor.record(report(2.0), images=20, batch=20, waited=0.0)
        monitor.record(report(math.nan, norm=math.nan, first=36), images=40, batch=20, waited=0.0)
        monitor.record(report(math.inf, norm=math.inf, first=50), images=60, batch=20, waited=0.0)
        monitor.record(report(4.0), images=100, batch=40, waited=0.0)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("loss")] == [3.0]
    assert [event.value for event in events.Scalars("skipped_steps")] == [2.0]
    assert (
        "warning: 2 of the 4 steps up to image 100 skipped, 2 bad in a row; the first at image 40, where the loss "
        "was not finite on rank 0: sample 36 (t=1, quarter 1), sample 37 (t=900, quarter 4)\n"
    ) in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("bad_steps", [0, 3])
def test_one_bad_step_in_a_row_more_than_is_borne_ends_the_run(run, bad_steps):
    run.run.bad_steps = bad_steps
    with Monitor(run, World(), 0, tiny.CPU) as monitor:
        for number in range(bad_steps):
            monitor.record(report(1.0, norm=math.inf), images=number + 1, batch=1, waited=0.0)
        monitor.look()
        monitor.record(report(1.0, norm=math.inf, first=30), images=40, batch=10, waited=0.0)
        with pytest.raises(FloatingPointError, match=f"More than run.bad_steps={bad_steps} in a row") as caught:
            monitor.look()
    assert f"{bad_steps + 1} bad in a row" in str(caught.value), "the row goes on over a look"
    assert "at image 40, where only the gradient was not finite, of the samples 30 to 31" in str(caught.value)


def test_rows_of_bad_steps_with_good_ones_between_are_borne(run):
    run.run.bad_steps = 1
    with Monitor(run, World(), 0, tiny.CPU) as monitor:
        for number in range(9):
            monitor.record(report(math.nan if number % 2 else 1.0), images=10 * number + 10, batch=10, waited=0.0)
        monitor.look()


@mock.patch("trainer.tally.FOLD", 2)  # so that steps are added up between ticks
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("clip_norm", [0.0, 1e-3])
def test_no_step_waits_for_the_host_between_ticks(run, accumulation, clip_norm):
    """Without dropout, whose numbers a CPU draws on the host, and an accelerator by a kernel of its own."""
    engine = tiny.engine(tiny.network(), accumulation=accumulation, clip_norm=clip_norm)
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


def monitored(world: World, directory: str) -> None:
    """Two looks, of which the first finds a bad loss on rank 1 and the second one bad step too many everywhere."""
    run = Run(
        RunConfig(directory, images=1000, log_every=60, bad_steps=1), DataConfig("none", resolution=8, channels=1)
    )
    rank = world.rank
    with Monitor(run, world, 0, tiny.CPU) as monitor:
        monitor.clock = time.monotonic() - 10
        loss = [math.nan, 6.0] if rank == 1 else [float(rank + 1)] * 2
        norm = math.nan  # as one rank's loss makes the gradient of all
        index = [30 + 2 * rank, 31 + 2 * rank]
        monitor.record(slow(tiny.report(loss, [1, 900], norm, index), rank), 30, 30, 0.0)
        monitor.record(slow(tiny.report([3.0, 3.0], [1, 900], 1.0), rank), 60, 30, 2.0 * rank, skipped=rank)
        for images in (90, 120):
            monitor.record(tiny.report([1.0], [1], math.inf, [images - 6 + rank]), images, 30, 2.0 * rank)


def slow(report: Report, rank: int) -> Report:
    """The same on a rank whose laps take (1, 2) seconds."""
    report.lap._end.time = report.lap._start.time + 1 + rank
    return report


def judged(world: World, directory: str) -> str:
    with pytest.raises(FloatingPointError) as caught:
        monitored(world, directory)
    return str(caught.value)


def test_ranks_write_one_record_of_all_and_end_with_one_report(tmp_path):
    said = on_ranks(2, judged, str(tmp_path))
    assert len(set(said)) == 1, "every rank ends with the same words"
    assert "2 of the 2 steps up to image 120 skipped, 2 bad in a row; the first at image 90" in said[0]
    assert "only the gradient was not finite, of the samples 84 to 85" in said[0]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert len(list(tmp_path.glob("events*"))) == 1
    found = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert found["loss"] == pytest.approx((1 + 1 + 6 + 4 * 3) / 7)
    assert found["loss_by_t/quarter_1"] == pytest.approx((1 + 3 + 3) / 3)
    assert (found["gradient_norm"], found["skipped_steps"], found["data/skipped"]) == (1, 1, 1)
    assert found["speed/images_per_second"] == pytest.approx(60 / 10, rel=0.1)
    assert found["speed/waiting_for_data"] == pytest.approx(1 / 10, rel=0.1)
    assert found["speed/waiting_for_data_worst"] == pytest.approx(2 / 10, rel=0.1)
    log = (tmp_path / "train.log").read_text()
    assert re.search(r"60/1000 images  loss .* rank 1 waits (19|20)\.\d%  rank 1 is slowest \+200%", log)
    assert "at image 30, where the loss was not finite on rank 1: sample 32 (t=1, quarter 1)\n" in log
