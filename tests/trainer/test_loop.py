"""train_step: Algorithm 1, on the noise that belongs to each sample; train: what is saved, and what is not."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace

import pytest
import torch

from models.classes import NO_CLASS
from models.networks.dropout import key_dropout
from models.networks.unet import UNetConfig
from models.noise import Noise
from models.objectives import SimpleLoss
from models.pixels import to_unit
from tests.test_experiments import composed
from tests.trainer import tiny
from trainer import loop
from trainer.distributed import World
from trainer.interruption import Interruption
from trainer.loop import Outcome, train, train_step


def steps(accumulation: int, dropout: float = 0.0, numbers: range = range(2)) -> list:
    engine = tiny.engine(tiny.network(dropout), accumulation=accumulation)
    return [
        train_step(engine, tiny.diffusion(engine), SimpleLoss(), tiny.batch(number), 1e-3, seed=7)
        for number in numbers
    ]


def test_the_terms_are_those_of_the_objective_on_the_noise_of_the_seed_and_the_index():
    engine, batch = tiny.engine(), tiny.batch(3)
    with torch.no_grad():
        expected = SimpleLoss()(tiny.diffusion(engine), to_unit(batch.x), Noise(7, batch.index))
    report = train_step(engine, tiny.diffusion(engine), SimpleLoss(), batch, 1e-3, seed=7)
    assert torch.equal(report.terms.t, expected.t)
    assert torch.allclose(report.terms.loss, expected.loss, rtol=1e-5)
    assert report.learning_rate == 1e-3


def test_a_step_goes_downhill_on_the_mean_of_the_terms():
    engine, batch, rate = tiny.engine(clip_norm=0.0), tiny.batch(), 1e-6
    before = {name: weight.clone() for name, weight in tiny.weights(engine).items()}
    first = train_step(engine, tiny.diffusion(engine), SimpleLoss(), batch, rate, seed=7)
    moved = sum(float((tiny.weights(engine)[name] - before[name]).abs().sum()) for name in before)
    count = sum(weight.numel() for weight in before.values())
    assert moved == pytest.approx(rate * count, rel=0.2)  # Adam's first step is the rate, in every weight
    again = train_step(engine, tiny.diffusion(engine), SimpleLoss(), batch, rate, seed=7)
    assert float(again.terms.loss.mean()) < float(first.terms.loss.mean())


@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_network_is_told_the_classes_that_the_objective_does_not_hide(accumulation):
    config = UNetConfig(8, [1, 2], blocks=1, attention=[4], dropout=0.0, groups=4, classes=3)
    engine, heard = tiny.engine(lambda: config.build(1, 8), accumulation=accumulation), []
    engine.network.register_forward_pre_hook(lambda module, given: heard.append(given[2]))
    classes = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    batch, objective = replace(tiny.batch(), condition=classes), SimpleLoss(label_dropout=0.5)
    train_step(engine, tiny.diffusion(engine), objective, batch, 1e-3, seed=7)
    told = torch.cat(heard)
    assert torch.equal(told, objective.told(classes, Noise(7, batch.index)))
    assert 0 < int((told == NO_CLASS).sum()) < 8
    assert torch.equal(told[told != NO_CLASS], classes[told != NO_CLASS])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_with_dropout_does_not_depend_on_what_torch_has_drawn_before(accumulation):
    torch.manual_seed(0)
    one = steps(accumulation, dropout=0.5)
    torch.manual_seed(1)
    other = steps(accumulation, dropout=0.5)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.terms.loss, b.terms.loss)
        assert torch.equal(a.gradient_norm, b.gradient_norm)


def test_every_sample_draws_its_own_dropout():
    """The same image eight times at one t: only what is keyed by the sample can make its losses differ."""
    engine = tiny.engine(tiny.network(dropout=0.5))
    x, t = tiny.images(1)[:2]
    with torch.no_grad():
        key_dropout(engine.network, Noise(7, torch.arange(8)))
        outputs = engine(x.expand(8, 1, 8, 8), t.expand(8))
    assert len({float(output.sum()) for output in outputs}) == 8


def test_micro_batches_draw_the_same_dropout_as_the_whole_batch():
    whole, halves = (steps(accumulation, dropout=0.5) for accumulation in (1, 4))
    for a, b in zip(whole, halves, strict=True):
        assert torch.allclose(a.terms.loss, b.terms.loss, rtol=1e-4)


def test_a_step_accumulated_reports_every_image_in_order():
    whole, halves = steps(1, numbers=range(1))[0], steps(4, numbers=range(1))[0]
    assert torch.equal(whole.terms.t, halves.terms.t)
    assert torch.allclose(whole.terms.loss, halves.terms.loss, rtol=1e-4)


def short(directory, *more: str):
    """Six steps of 16 heartbeats, saved at each."""
    given = ("run.images=96", "run.save_every=16", "run.keep=0", "data.batch=16", "preview.every=0")
    return composed("dpm_heartbeat", f"run.directory={directory}", "process.schedule.steps=20", *given, *more)


def saved(run) -> list[int]:
    return sorted(int(path.name) for path in run.checkpoints().glob("[0-9]*"))


def poison(monkeypatch, *bad: int) -> None:
    """The losses and gradients of these steps, of a run from its start, are not finite."""

    def step(engine, diffusion, objective, batch, lr, seed):
        def poisoned(*given):
            terms = objective(*given)
            return type(terms)(terms.loss * torch.inf, terms.t)

        objective_now = poisoned if 1 + int(batch.index[0]) // 16 in bad else objective
        return train_step(engine, diffusion, objective_now, batch, lr, seed)

    monkeypatch.setattr(loop, "train_step", step)


@pytest.mark.parametrize(
    ("bad_steps", "said"),
    [(2, "3 bad in a row; .*More than run.bad_steps=2"), (9, "does not finish on a bad step")],
)
def test_a_run_of_bad_steps_alone_never_finishes_however_often_it_is_started(
    tmp_path, monkeypatch, bad_steps, said
):
    poison(monkeypatch, *range(1, 7))
    run = short(tmp_path, f"run.bad_steps={bad_steps}")
    for _ in range(3):
        with pytest.raises(FloatingPointError, match=said):
            train(run, World(), Interruption())
        assert not saved(run)


def test_what_falls_due_in_a_row_of_bad_steps_is_saved_after_the_first_good_one(tmp_path, monkeypatch):
    poison(monkeypatch, 3, 4)
    run = short(tmp_path, "run.save_every=48")
    assert train(run, World(), Interruption()) is Outcome.FINISHED
    assert saved(run) == [80, 96]


def test_a_run_that_leaves_in_a_row_of_bad_steps_says_that_it_is_not_saved(tmp_path, monkeypatch):
    poison(monkeypatch, 3)
    run = short(tmp_path)
    assert train(run, World(), Asked(at=3)) is Outcome.UNSAVED
    assert saved(run) == [16, 32]
    assert train(run, World(), Asked(at=1)) is Outcome.UNSAVED, "the bad step is met again"


class Asked(Interruption):
    """A request to leave that comes in the step `at`."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def test_signals_are_obeyed_until_all_is_built_and_a_stand_still_is_watched_from_the_start(tmp_path, monkeypatch):
    seen, plain = {}, loop.prepared

    def prepared(run, world):
        seen["handler"] = signal.getsignal(signal.SIGTERM)
        seen["watched"] = [thread.name for thread in threading.enumerate()]
        return plain(run, world)

    monkeypatch.setattr(loop, "prepared", prepared)
    poison(monkeypatch)
    assert train(short(tmp_path, "run.images=16"), World(), Interruption()) is Outcome.FINISHED
    assert seen["handler"] is signal.getsignal(signal.SIGTERM)
    assert "watch" in seen["watched"]
