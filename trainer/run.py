"""Everything that is chosen about a run, as one plain value. `configs/` composes it, the trainer reads it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from data_pipeline.config import DataConfig, DataSource
from models.diffusion import Chain, Diffusion
from models.networks.config import NetworkConfig
from models.networks.scheduled import Scheduled
from models.networks.unet import UNetConfig
from models.objectives import LowerBound, Objective, SimpleLoss
from models.parameterizations import Epsilon, Parameterization, ReverseKernel
from models.processes import GaussianProcess, MarkovProcess
from models.samplers import Ancestral, Ddim, Sampler
from models.schedules import Learned, Live
from trainer.engine import Engine, EngineConfig
from trainer.optimizers import OptimizerConfig


@dataclass
class RunConfig:
    """directory: where everything that the run writes lies. seed: of the weights, the order and all noise.

    images: the budget; training ends when so many have been seen. save_every, log_every: in images. keep: how many
    checkpoints are kept, 0 for all.
    """

    directory: str = "???"
    seed: int = 0
    images: int = 1_000_000
    save_every: int = 100_000
    keep: int = 3
    log_every: int = 10_000

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("save_every", 1), ("log_every", 1), ("keep", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"run.{name} must be at least {least}, got {getattr(self, name)}")


@dataclass
class EmaConfig:
    """half_lives: of each average of the weights, in images. The first is the one that is sampled from."""

    half_lives: list[float] = field(default_factory=lambda: [100_000.0])

    def __post_init__(self) -> None:
        self.half_lives = list(self.half_lives)


@dataclass
class PreviewConfig:
    """A grid of `count` images of the averaged weights in TensorBoard, each `every` images; 0 draws none."""

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
    """A training run: shard, batch, noise, network, loss, engine, average, checkpoint, look."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataSource = field(default_factory=DataConfig)
    process: MarkovProcess = field(default_factory=GaussianProcess)
    parameterization: ReverseKernel = field(default_factory=Epsilon)
    objective: Objective = field(default_factory=SimpleLoss)
    network: NetworkConfig = field(default_factory=UNetConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    sampler: Sampler = field(default_factory=Ancestral)
    preview: PreviewConfig = field(default_factory=PreviewConfig)

    def __post_init__(self) -> None:
        if isinstance(self.process.schedule, Learned) and not isinstance(self.objective, LowerBound):
            raise ValueError(
                "process/schedule=learned ascends on K: it needs objective=bound, got "
                f"{type(self.objective).__name__}"
            )
        through_x_0 = isinstance(self.parameterization, Parameterization)
        for place, part in (
            ("objective", self.objective),
            ("sampler", self.sampler),
            ("preview.sampler", self.preview.sampler if self.preview.every else self.sampler),
        ):
            if part.needs is Diffusion and not through_x_0:
                raise ValueError(
                    f"{place}={type(part).__name__} goes through x̂_0, which "
                    f"parameterization={type(self.parameterization).__name__} does not give; "
                    "choose objective=bound and sampler=ancestral"
                )

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.run.directory)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.data.channels, self.data.resolution, self.data.resolution

    def build_network(self) -> nn.Module:
        """The network, on torch's current device, not yet initialized."""
        network = self.network.build(
            self.data.channels, self.data.resolution, self.parameterization.outputs, self.process.steps
        )
        schedule = self.process.schedule
        return Scheduled(network, schedule) if isinstance(schedule, Learned) else network

    def diffusion(self, network: Engine) -> Chain:
        """The process, the meaning of the network's output, and the network."""
        kind = Diffusion if isinstance(self.parameterization, Parameterization) else Chain
        process = self.process
        if isinstance(process.schedule, Learned):
            process = replace(process, schedule=Live(process.steps, now=network.network.beta))
        return kind(process, self.parameterization, network)

    def checkpoints(self) -> Path:
        """Where its checkpoints lie."""
        return self.directory / "checkpoints"
