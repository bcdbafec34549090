"""The smallest real run, digits and all, at any place: an engine, so many ranks, so many micro-batches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from configs.runs import keep_config, load_run, to_value
from configs.schema import register
from data_pipeline.sources import Digits
from data_pipeline.write import write_shards
from tests.trainer.ranks import on_ranks
from trainer.averaged import averaged_diffusion
from trainer.distributed import World
from trainer.interruption import Interruption
from trainer.loop import train

BATCH = 12  # which 1, 2 and 3 ranks of 1 and 2 micro-batches divide
SETTINGS = (
    "experiment=ddpm_digits",
    f"data.batch={BATCH}",
    "data.workers=1",
    "network.channels=16",
    "network.dropout=0.1",
    f"run.log_every={BATCH}",
    "run.keep=0",
    "preview.every=0",
    f"optimizer.warmup_images={10 * BATCH}",
    "ema.half_lives=[100,30]",
)


@dataclass(frozen=True)
class Place:
    """Where a run runs."""

    engine: str
    ranks: int
    accumulation: int = 1

    def __str__(self) -> str:
        return f"{self.engine} × {self.ranks}"

    @property
    def slug(self) -> str:
        """As a file is named."""
        return f"{self.engine}-{self.ranks}"

    def settings(self, directory: Path, steps: int, *more: str) -> list[str]:
        """The command line of a run of so many steps, saved at its end."""
        return [
            *SETTINGS,
            f"engine={self.engine}",
            f"engine.accumulation={self.accumulation}",
            f"run.directory={directory}",
            f"run.images={steps * BATCH}",
            f"run.save_every={steps * BATCH}",
            *more,
        ]

    def train(self, directory: Path, steps: int, *more: str) -> None:
        """Trains there, from wherever the directory's run stands, until so many steps have been made."""
        on_ranks(self.ranks, trained, self.settings(directory, steps, *more))


def trained(world: World, settings: list[str]) -> None:
    """What each rank does."""
    register()
    with initialize_config_module("configs", version_base="1.3"):
        config = compose("train", settings)
    run = to_value(config)
    keep_config(config, run, writes=world.is_main)
    with redirect_stdout(StringIO()):
        train(run, world, Interruption())


def packed(directory: Path) -> Path:
    """Shards of the digits."""
    write_shards(Digits("train"), directory)
    return directory


def losses(directory: Path) -> dict[int, float]:
    """The loss of each step, by the images seen, as TensorBoard has it."""
    events = EventAccumulator(str(directory)).Reload()
    return {event.step: event.value for event in events.Scalars("loss")}


def average(directory: Path, half_life: float = 0.0) -> Mapping[str, Tensor]:
    """One of the averages in the newest checkpoint of a run."""
    run = load_run(directory)
    latest = max(run.checkpoints().iterdir())
    diffusion = averaged_diffusion(run, latest, half_life, torch.device("cpu"))
    weights: Mapping[str, Tensor] = diffusion.network.network.state_dict()
    return weights


def apart(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float:
    """The largest relative difference of two curves that have the same steps."""
    assert ours.keys() == theirs.keys(), (sorted(ours), sorted(theirs))
    return max(abs(loss - theirs[images]) / abs(theirs[images]) for images, loss in ours.items())
