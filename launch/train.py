"""python -m launch.train experiment=NAME key=value …: train a diffusion model; the same command again resumes."""

from __future__ import annotations

import signal

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door

PREEMPTED = 75  # EX_TEMPFAIL: left when asked to, run the same command again; torchrun itself ends with 1

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
@door
def main(config: DictConfig) -> int:
    """Composes the run, trains, and says how it ended."""
    from configs.runs import OWN, flat, keep_config, to_document, to_value
    from trainer.checkpoints.checkpoints import Checkpoints
    from trainer.distributed import World
    from trainer.interruption import Interruption
    from trainer.loop import Outcome, train
    from trainer.versions import check_alike, versions
    from trainer.watch import record_flights

    # Before the first step nothing has to be saved: Ctrl-C kills, even while C++ waits for the other ranks.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    run, world, interruption = to_value(config), World.from_environment(), Interruption()
    record_flights(run.directory)
    with world.joined(run.run.patience):
        check_alike(world, versions() | flat(to_document(config, run), without=OWN))
        with world.together():
            keep_config(config, run, writes=world.is_main)
        outcome = train(run, world, interruption)
        signals = [name for name in world.everyones(interruption.name) if name]
    if outcome is not Outcome.FINISHED:
        if world.is_main:
            unsaved = "in a row of bad steps, with nothing saved since the last checkpoint"
            how = "with everything saved" if outcome is Outcome.PREEMPTED else unsaved
            print(f"left on {signals[0]} {how} in {run.checkpoints()}; the same command resumes")
        return PREEMPTED
    if world.is_main:
        latest = Checkpoints(run.checkpoints()).latest()
        print(f"finished: {int(latest.name)} images seen; the weights are in {latest}")
    return 0


if __name__ == "__main__":
    main()
