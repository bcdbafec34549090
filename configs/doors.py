"""What the doors other than training may be told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from data_pipeline.transforms import Crop
from models.block_code import BlockCode
from models.distributions import Cdf
from models.pixels import PixelRange
from models.probability_flow import Trace
from models.samplers import Sampler
from trainer.plans.device import Device
from trainer.run import Run

Action = Enum("Action", ["list", "verify", "describe"])


@dataclass
class LadderConfig:
    """shards: of the images that a ladder is chosen for. count: how many, in stored order; 0 for all.

    resolution, channels, crop, pixels: how the run reads the images, data.resolution and so on; [0, 1] unless
    pixels are given. smallest: sigma_L. least_overlap: of neighbouring levels; about 0.5 in the paper, 0.57 in its
    ladders. steps: of Langevin dynamics at each level, for which the step size is chosen.
    """

    shards: str = "???"
    count: int = 1_000
    resolution: int = 32
    channels: int = 3
    crop: Crop = Crop.none
    pixels: PixelRange = field(default_factory=lambda: replace(PixelRange.unit))
    smallest: float = 0.01
    least_overlap: float = 0.5
    steps: int = 5

    def __post_init__(self) -> None:
        for name, least in (("count", 0), ("steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass
class PlanConfig(Run):
    """A run, and what it is planned on.

    ranks, ranks_per_node: processes, one to each accelerator. device: whose autocast the activations are of.
    samples, samples_per_shard: of the data, where data.shards is not here. steps: whose reading is followed.
    """

    ranks: int = 1
    ranks_per_node: int = 8
    device: Device = Device.accelerator
    samples: int = 3_033_042  # LSUN bedroom
    samples_per_shard: int = 1_000
    steps: int = 1_000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ranks", "ranks_per_node", "samples", "samples_per_shard", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass
class Directory:
    """directory: of a run."""

    directory: str = "???"


@dataclass
class CheckpointConfig:
    """action: list, verify or describe. checkpoint: the images seen; 0 for all, or, to describe, the latest."""

    run: Directory = field(default_factory=Directory)
    action: Action = Action.list  # type: ignore[assignment]
    checkpoint: int = 0

    def __post_init__(self) -> None:
        if self.checkpoint < 0:
            raise ValueError(f"checkpoint must be at least 0, got {self.checkpoint}")


@dataclass
class OwnSampler:
    """The sampler that the run was configured with, save for what is given here."""

    steps: int | None = None
    clip: bool | None = None
    eta: float | None = None

    def over(self, sampler: Sampler) -> Sampler:
        """The run's sampler with these changes. Raises ValueError for a field that it does not have."""
        changes = {name: value for name, value in vars(self).items() if value is not None}
        unknown = sorted(changes.keys() - vars(sampler).keys())
        if unknown:
            raise ValueError(
                f"sampler.{unknown[0]}: the run's sampler, {sampler}, has no such field; choose sampler=…"
            )
        return replace(sampler, **changes)


@dataclass
class RestoreConfig:
    """A run's averaged weights, and how images go through them.

    checkpoint: the images it had seen, or 0 for the latest. half_life: of the average, or 0 for the run's first.
    batch: how many images are handled at once; it changes no image. seed: of the images' noise.
    """

    run: Directory = field(default_factory=Directory)
    checkpoint: int = 0
    half_life: float = 0.0
    batch: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("checkpoint", 0), ("half_life", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass
class FigureConfig(RestoreConfig):
    """figure: which, with its own fields."""

    figure: Any = "???"


@dataclass
class CountedConfig(RestoreConfig):
    """count: of images."""

    count: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 0:
            raise ValueError(f"count must be at least 0, got {self.count}")


@dataclass
class GenerateConfig(CountedConfig):
    """sampler: the run's own unless another is chosen.

    guidance: w of classifier-free guidance, (1 + w) output(x, c) - w output(x, no class); 0 is the plain model.
    """

    sampler: Any = "???"
    guidance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"guidance must be at least 0, got {self.guidance}")


@dataclass
class SampleConfig(GenerateConfig):
    """count, start: images number start .. start + count - 1 are drawn. out: where they are written.

    classes: of a run that knows classes, which ones in turn: image i is of class classes[i modulo their number].
    """

    count: int = 64
    start: int = 0
    out: str = ""
    classes: Any = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        listed = isinstance(self.classes, list) and self.classes and all(type(c) is int for c in self.classes)
        if not (listed or self.classes == "all"):
            raise ValueError(f"classes must be all, or a list of class numbers such as [3,5], got {self.classes}")
        if self.count < 1 or self.start < 0:
            raise ValueError(f"count must be at least 1 and start at least 0, got {self.count} and {self.start}")


@dataclass
class EvaluateConfig(GenerateConfig):
    """held_out: shards of real images that the run was not trained on; drawn data needs none.

    count: how many samples are scored; 0 for as many as are held out, or 10,000 of drawn data. trajectories: where
    the bound K is the score, for each of a hundred samples, to estimate p(x_0) itself along; 0 for none. parzen:
    how many samples are drawn for a Parzen-window estimate beside K; 0 for none.
    any_moments: score data whose moments are not the prior's, for which K is no bound, by the form that is one.
    """

    held_out: str = ""
    trajectories: int = 0
    parzen: int = 0
    any_moments: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trajectories < 0 or self.trajectories == 1:
            raise ValueError(f"trajectories must be 0, for none, or at least 2, got {self.trajectories}")


@dataclass
class BitsConfig(CountedConfig):
    """shards: of the images whose likelihood is bounded. count: how many, in stored order; 0 for all.

    clip: hold x̂_0 within [-1, 1], as the official code does. floor: the least probability of a pixel's value in
    the decoder; 0 is exact, the official code has 1e-12. cdf: the decoder's distribution function, exact or by
    tanh, as in the official code.

    flow: steps of the probability flow, whose likelihood is then reported too; 0 leaves it out. trace: how its
    divergence is found; exact takes a gradient for each dimension.

    steps: at how many times the chain is seen, 0 for all. power: 1 for even strides between these, more for
    shorter ones near the data.
    """

    shards: str = "???"
    clip: bool = True
    floor: float = 0.0
    cdf: Cdf = Cdf.exact
    steps: int = 0
    power: float = 1.0
    flow: int = 0
    trace: Trace = Trace.hutchinson

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flow < 0:
            raise ValueError(f"flow must be at least 0, got {self.flow}")


@dataclass
class CompressConfig(CountedConfig):
    """shards: of the images, of which `count` are compressed, in stored order (0: all). out: the file.

    steps, power: the times at which the chain is seen, as of `launch.bits`. send: how many of these steps the file
    holds; 0 for all, and so without loss. clip: hold x̂_0 within [-1, 1]. code: how the blocks are made. seed: of
    the randomness that the file's readers share. batch: as the file's readers have it too.
    """

    shards: str = "???"
    out: str = "???"
    count: int = 16
    steps: int = 50
    power: float = 3.0
    send: int = 0
    clip: bool = True
    code: BlockCode = field(default_factory=BlockCode)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.send < 0:
            raise ValueError(f"steps and send must be at least 0, got {self.steps} and {self.send}")
        if not self.batch < 1 << 16:
            raise ValueError(f"batch must be below {1 << 16}, got {self.batch}")


@dataclass
class DecompressConfig:
    """run: with whose weights the file was compressed. file: it. out: the folder of the images.

    partial: accept a file that is cut short, and show what its whole steps tell.
    """

    run: Directory = field(default_factory=Directory)
    file: str = "???"
    out: str = "???"
    partial: bool = False
