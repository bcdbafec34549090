"""Training, on one page."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import torch

from data_pipeline.batches import Batch
from models.diffusion import Chain
from models.networks.dropout import key_dropout
from models.noise import Noise
from models.objectives import Objective, Terms
from models.pixels import as_data
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.distributed import Agreement, World
from trainer.ema import Ema
from trainer.engines.engine import Engine
from trainer.feed import Feed
from trainer.interruption import Interruption
from trainer.lap import Lap
from trainer.monitor import Monitor
from trainer.probes import SampleGrid
from trainer.run import Run
from trainer.schedules import Every
from trainer.state import TrainState
from trainer.tally import Report
from trainer.watch import Watch

if TYPE_CHECKING:
    from data_pipeline.config import Stream


class Outcome(Enum):
    """How training ended."""

    FINISHED = "finished"
    PREEMPTED = "preempted"
    UNSAVED = "preempted in a row of bad steps, which are not saved"


def train(run: Run, world: World, asked_to_leave: Interruption) -> Outcome:
    """Follows the flow once per batch: shard, batch, noise, network, loss, engine, average, checkpoint, look."""
    with Watch(run, world) as watch:
        data, checkpoints, state = prepared(run, world)
        if state.images >= run.run.images:
            checkpoints.tell()
            return Outcome.FINISHED
        watch.begin(state.images)
        engine, diffusion, feed = state.engine, run.diffusion(state.engine), Feed(state.engine.device)
        probes, save_every, due = [SampleGrid(run, world)], Every(run.run.save_every), False
        with (
            asked_to_leave,
            Agreement(world) as agreed,
            Monitor(run, world, state.images, engine.device) as monitor,
            data.open(state.cursor, world.rank, world.size, engine.accumulation, feed.pinned) as batches,
            checkpoints.telling(monitor.note),
        ):
            for batch in map(feed, batches):
                lr = run.optimizer.rate(state.images)
                report = train_step(engine, diffusion, run.objective, batch, lr, run.run.seed)
                state.advance(batch)
                state.ema.update(batch.global_size)
                watch.step(state.images)
                monitor.record(report, state.images, batch.global_size, batches.waiting_seconds, batches.skipped)
                checkpoints.tell()
                finished, leaving = state.images >= run.run.images, agreed(asked_to_leave())
                due |= finished or leaving or save_every.due(state.images, batch.global_size)
                if due and monitor.look(last=finished):
                    with monitor.aside():
                        checkpoints.save(state)
                    due = False  # it stays due over bad steps
                for probe in probes:
                    if probe.every.due(state.images, batch.global_size) and not leaving:
                        with monitor.aside(), engine.lend(state.ema.shards()):
                            probe(diffusion, monitor, state.images)
                if finished or leaving:
                    break
        return Outcome.FINISHED if finished else Outcome.UNSAVED if due else Outcome.PREEMPTED


def prepared(run: Run, world: World) -> tuple[Stream, Checkpoints, TrainState]:
    """The data, the checkpoints and the state of the newest one, or of the start of the run."""
    with world.together():
        data = run.data.build(run.run.seed, run.network.known_classes)
    engine = run.engine.build(run.build_network, run.optimizer, run.run.seed, world)
    ema = Ema(engine.shards(), run.ema.half_lives)
    checkpoints = Checkpoints(run.checkpoints(), run.run.keep, world, run.run.patience)
    return data, checkpoints, checkpoints.restore(TrainState(engine, ema, data.fingerprint), run.warm_start)


def train_step(
    engine: Engine, diffusion: Chain, objective: Objective, batch: Batch, lr: float, seed: int
) -> Report:
    """One step of Algorithm 1 (Ho et al. 2020), in as many micro-batches as the engine accumulates."""
    lap, noise = Lap(engine.device), Noise(seed, batch.index.to(engine.device))
    x_0 = as_data(batch.x.to(engine.device), diffusion.pixels, noise)
    condition = None if batch.condition is None else objective.told(batch.condition.to(engine.device), noise)
    terms, size = [], len(x_0) // engine.accumulation
    for number in range(engine.accumulation):
        rows = slice(number * size, (number + 1) * size)
        key_dropout(engine.network, noise[rows])
        given = None if condition is None else condition[rows]
        terms.append(objective(diffusion, x_0[rows], noise[rows], given))
        if number == 0:
            lap.end()
        engine.backward(terms[-1].loss.sum() / len(x_0), last=number == engine.accumulation - 1)
    norm = engine.step(lr)
    joined = Terms(torch.cat([term.loss.detach() for term in terms]), torch.cat([term.t for term in terms]))
    return Report(joined, norm, lr, noise.index, lap)
