"""Everything that is chosen about a run, as one plain value. `configs/` composes it, the trainer reads it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from data_pipeline.config import DataConfig, DataSource
from models.classes import Assignment, Cycle
from models.diffusion import Chain, Diffusion
from models.networks.config import NetworkConfig
from models.networks.scheduled import Scheduled
from models.networks.unet import UNetConfig
from models.objectives import LowerBound, Objective, SimpleLoss
from models.parameterizations import Epsilon, Parameterization, ReverseKernel
from models.pixels import PixelRange
from models.processes import GaussianProcess, MarkovProcess, Process, required
from models.samplers import Ancestral, Ddim, Sampler
from models.schedules import Learned, Live
from trainer.checkpoints.warm_start import WarmStart
from trainer.ema import check_half_lives
from trainer.engines.engine import EngineConfig
from trainer.engines.local import LocalConfig
from trainer.optimizers import OptimizerConfig


class Trained(Protocol):
    """What runs a network: an engine, or averaged weights."""

    network: Any

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The network's output."""


@dataclass
class RunConfig:
    """directory: where everything that the run writes lies. seed: of the weights, the order and all noise.

    images: the budget; training ends when so many have been seen. save_every, log_every: in images. keep: how many
    checkpoints are kept, 0 for all. patience: the seconds that a rank waits for the others before it gives up.
    bad_steps: how many steps in a row may have a loss or a gradient that is not finite; one more ends the run.
    """

    directory: str = "???"
    seed: int = 0
    images: int = 1_000_000
    save_every: int = 100_000
    keep: int = 3
    log_every: int = 10_000
    patience: float = 600.0
    bad_steps: int = 10

    def __post_init__(self) -> None:
        positive, whole = ("images", "save_every", "log_every"), ("keep", "seed", "bad_steps")
        for name, least in (dict.fromkeys(positive, 1) | dict.fromkeys(whole, 0)).items():
            if getattr(self, name) < least:
                raise ValueError(f"run.{name} must be at least {least}, got {getattr(self, name)}")
        if self.patience <= 0:
            raise ValueError(f"run.patience must be more than 0 seconds, got {self.patience}")


@dataclass
class EmaConfig:
    """half_lives: of each average of the weights, in images. The first is the one that is sampled from."""

    half_lives: list[float] = field(default_factory=lambda: [100_000.0])

    def __post_init__(self) -> None:
        self.half_lives = list(self.half_lives)
        check_half_lives(self.half_lives)


@dataclass
class PreviewConfig:
    """A picture of `count` samples of the averaged weights in TensorBoard, each `every` images; 0 draws none."""

    every: int = 100_000
    count: int = 64
    sampler: Sampler = field(default_factory=Ddim)

    def __post_init__(self) -> None:
        if self.every < 0 or self.count < 1:
            raise ValueError(
                f"preview.every must be at least 0 and preview.count at least 1, got {self.every} and {self.count}"
            )


@dataclass
class Run:
    """A training run: shard, batch, noise, network, loss, engine, average, checkpoint, look.

    pixels: the range in which the model sees them.
    """

    run: RunConfig = field(default_factory=RunConfig)
    data: DataSource = field(default_factory=DataConfig)
    pixels: PixelRange = field(default_factory=PixelRange)
    process: Process = field(default_factory=GaussianProcess)
    parameterization: ReverseKernel = field(default_factory=Epsilon)
    objective: Objective = field(default_factory=SimpleLoss)
    network: NetworkConfig = field(default_factory=UNetConfig)
    engine: EngineConfig = field(default_factory=LocalConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    warm_start: WarmStart = field(default_factory=WarmStart)
    sampler: Sampler = field(default_factory=Ancestral)
    preview: PreviewConfig = field(default_factory=PreviewConfig)

    def __post_init__(self) -> None:
        for name, part in {"parameterization": self.parameterization, "objective": self.objective}.items():
            required(self.process, part.needs, f"{name}={type(part).__name__}")
        self.sampler.check(self.process, "sampler")
        if self.preview.every:  # now, not at the first preview, which may be hours away
            self.preview.sampler.check(self.process, "preview.sampler")
        self._check_kernel(self.parameterization)
        self._check_classes()
        if self.learned_schedule and not isinstance(self.objective, LowerBound):
            raise ValueError(
                "process/schedule=learned ascends on K: it needs objective=bound, got "
                f"{type(self.objective).__name__}"
            )

    def _check_kernel(self, kernel: ReverseKernel) -> None:
        if isinstance(kernel, Parameterization):
            trained = self.objective.variances
            if kernel.variance not in trained:
                raise ValueError(
                    f"objective={type(self.objective).__name__} trains with parameterization.variance="
                    f"{' or '.join(each.name for each in trained)}, got {kernel.variance.name}"
                )
            return
        preview = {"preview.sampler": self.preview.sampler} if self.preview.every else {}
        for place, part in {"objective": self.objective, "sampler": self.sampler, **preview}.items():
            if part.through_x_0:
                raise ValueError(
                    f"{place}={type(part).__name__} goes through x̂_0, which parameterization="
                    f"{type(kernel).__name__} does not give; choose objective=bound and sampler=ancestral"
                )

    def _check_classes(self) -> None:
        known = self.network.known_classes
        if self.data.gives_classes is not (known > 0):
            raise ValueError(
                "data.labels=true and network.classes, the number of classes, go together, got data.labels="
                f"{str(self.data.gives_classes).lower()} and network.classes={known}"
            )
        if not 0 <= self.objective.label_dropout < 1:
            raise ValueError(f"objective.label_dropout must lie in [0, 1), got {self.objective.label_dropout}")

    def check_without_class(self, what: str) -> None:
        """Raises ValueError where `what` asks the network without a class and it has learned only with one."""
        if self.network.known_classes and not self.objective.label_dropout:
            raise ValueError(
                f"{what} asks what the network says without a class, which the run was not trained to say: its "
                "objective.label_dropout is 0"
            )

    @property
    def learned_schedule(self) -> Learned | None:
        """The noise schedule, where it is learned with the network."""
        schedule = self.process.schedule if isinstance(self.process, MarkovProcess) else None
        return schedule if isinstance(schedule, Learned) else None

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.run.directory)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.data.channels, self.data.resolution, self.data.resolution

    @property
    def every_class(self) -> Assignment | None:
        """Each class that the network knows, in turn."""
        known = self.network.known_classes
        return Cycle(tuple(range(known))) if known else None

    def build_network(self) -> nn.Module:
        """The network, on torch's current device, not yet initialized."""
        outputs, steps = self.parameterization.outputs, self.process.steps
        network = self.network.build(self.data.channels, self.data.resolution, outputs, steps)
        return Scheduled(network, self.learned_schedule) if self.learned_schedule else network

    def diffusion(self, network: Trained) -> Chain:
        """The process, the meaning of the network's output, and the network."""
        kind = Diffusion if isinstance(self.parameterization, Parameterization) else Chain
        process = self.process
        if self.learned_schedule:
            process = replace(process, schedule=Live(process.steps, now=network.network.beta))
        return kind(process, self.parameterization, network, self.pixels)

    def checkpoints(self) -> Path:
        """Where its checkpoints lie."""
        return self.directory / "checkpoints"
