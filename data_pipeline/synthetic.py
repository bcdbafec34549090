"""Synthetic data whose law is known: each sample is a pure function of (seed, stream position), with no shards.

Samples are float32, already in the range that models see: standardised, or zeros and ones.
"""

from __future__ import annotations

import hashlib
import math
import time
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from data_pipeline.batches import Batch
from data_pipeline.config import DataSource
from data_pipeline.order import Purpose, check_micro_batches, position_words, positions_of_rank

Samples = Float[np.ndarray, "count c h w"]


@dataclass
class SyntheticConfig(DataSource):
    """Data that is drawn rather than read.

    batch: samples per global batch, over all ranks.
    """

    batch: int = 128
    pixels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"data.batch must be at least 1, got {self.batch}")

    @property
    @abstractmethod
    def channels(self) -> int:
        """Of one sample; a vector's length, where samples are vectors."""

    @property
    def resolution(self) -> int:
        """Height and width of one sample; 1 where samples are vectors."""
        return 1

    @abstractmethod
    def samples(self, seed: int, start: int, count: int) -> Samples:
        """The samples at stream positions start .. start + count - 1."""

    def build(self, seed: int, classes: int = 0) -> SyntheticStream:
        return SyntheticStream(self, seed)


@dataclass
class SwissRoll(SyntheticConfig):
    """A two-dimensional swiss roll: the point at angle u in [1.5π, 4.5π] of the spiral (u cos u, u sin u).

    Standardised: the mean is taken off each coordinate, and both are divided by the one number that makes their
    average second moment 1, so that the roll keeps its form.
    noise: the standard deviation of Gaussian noise on the roll, in the standardised units; 0 for a bare curve.
    """

    noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.noise < 1:
            raise ValueError(f"data.noise must lie in [0, 1), got {self.noise}")

    @property
    def channels(self) -> int:
        return 2

    def samples(self, seed: int, start: int, count: int) -> Samples:
        words = position_words(seed, Purpose.SYNTHESIS, start, count)
        x = (1 - self.noise**2) ** 0.5 * self.curve(unit_interval(words[:, 0])) + self.noise * normals(
            words[:, 1:3]
        )
        return as_images(x)

    @staticmethod
    def curve(share: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
        """The standardised points at the angles 1.5π + 3π · share, by the exact moments of the spiral."""
        u = math.pi * (1.5 + 3 * share)
        low, high = 1.5 * math.pi, 4.5 * math.pi
        mean = np.array([u_cos(high) - u_cos(low), u_sin(high) - u_sin(low)]) / (high - low)
        second = (high**3 - low**3) / 3 / (high - low)
        scale = math.sqrt((second - (mean**2).sum()) / 2)
        points: np.ndarray = (u[:, None] * np.stack((np.cos(u), np.sin(u)), axis=1) - mean) / scale
        return points


def u_cos(u: float) -> float:
    """The integral of u cos u."""
    return math.cos(u) + u * math.sin(u)


def u_sin(u: float) -> float:
    """The integral of u sin u."""
    return math.sin(u) - u * math.cos(u)


@dataclass
class Heartbeat(SyntheticConfig):
    """Binary sequences with a one in every fifth place, from one of five places on (DPM 2015, Fig. 2)."""

    length: int = 20
    period: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.period < 1 or self.length < 1 or self.length % self.period:
            raise ValueError(f"data.length must be a multiple of data.period, got {self.length} and {self.period}")

    @property
    def channels(self) -> int:
        return self.length

    def samples(self, seed: int, start: int, count: int) -> Samples:
        words = position_words(seed, Purpose.SYNTHESIS, start, count)
        first = (unit_interval(words[:, 0]) * self.period).astype(np.int64)
        beats = np.arange(self.length)[None] % self.period == first[:, None]
        return as_images(beats)


@dataclass
class Mixture(SyntheticConfig):
    """A mixture of isotropic Gaussians, whose density is exact.

    means: of each component, all of one length. stds, weights: of each component; the weights sum to 1.
    """

    means: list[list[float]] = field(default_factory=lambda: [[-1.0, 0.0], [1.0, 0.0]])
    stds: list[float] = field(default_factory=lambda: [0.3, 0.3])
    weights: list[float] = field(default_factory=lambda: [0.5, 0.5])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.means, self.stds, self.weights = (
            [list(mean) for mean in self.means],
            list(self.stds),
            list(self.weights),
        )
        if (
            not len(self.means) == len(self.stds) == len(self.weights)
            or len({len(mean) for mean in self.means}) != 1
        ):
            raise ValueError(
                "data.means, data.stds and data.weights must be of one length, and all means of one length, got "
                f"{self.means}, {self.stds} and {self.weights}"
            )
        if min(self.stds) <= 0 or min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(
                f"data.stds and data.weights must be positive and the weights sum to 1, got {self.stds} "
                f"and {self.weights}"
            )

    @property
    def channels(self) -> int:
        return len(self.means[0])

    def samples(self, seed: int, start: int, count: int) -> Samples:
        blocks = 1 + -(-self.channels // 2) * 2
        words = sample_words(seed, start, count, blocks)
        component = np.searchsorted(np.cumsum(self.weights)[:-1], unit_interval(words[:, 0]), side="right")
        mean, std = np.array(self.means)[component], np.array(self.stds)[component]
        x = mean + std[:, None] * normals(words[:, 1:])[:, : self.channels]
        return as_images(x)

    def log_density(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """ln p(x), in nats."""
        mean, std = np.array(self.means), np.array(self.stds)
        distance = ((x[:, None] - mean) ** 2).sum(-1) / std**2
        logs = np.log(self.weights) - distance / 2 - self.channels * np.log(std * math.sqrt(2 * math.pi))
        density: np.ndarray = np.logaddexp.reduce(logs, axis=1)
        return density

    def score(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """∇ ln p(x): the components' own scores, weighted by how likely each is at x."""
        mean, variance = np.array(self.means), np.array(self.stds) ** 2
        off = mean - x[:, None]
        logs = np.log(self.weights) - (off**2).sum(-1) / variance / 2 - self.channels / 2 * np.log(variance)
        share = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
        score: np.ndarray = (share[..., None] * off / variance[:, None]).sum(1)
        return score

    def perturbed(self, signal: float, sigma: float) -> Mixture:
        """The law of signal · x + sigma · eps, for x of this one and standard normal eps: another mixture."""
        means = [[signal * value for value in mean] for mean in self.means]
        return replace(self, means=means, stds=[math.hypot(signal * std, sigma) for std in self.stds])


class SyntheticStream:
    """What `DataStream` is for shards: opens at any position, for any rank."""

    def __init__(self, config: SyntheticConfig, seed: int) -> None:
        self.config, self.seed = config, seed

    @property
    def fingerprint(self) -> str:
        """Of the law that the samples are drawn from."""
        return hashlib.sha256(repr(self.config).encode()).hexdigest()

    def open(
        self, cursor: int, rank: int = 0, world: int = 1, accumulation: int = 1, pinned: bool = False
    ) -> SyntheticBatches:
        """This rank's part of the global batches from stream position ``cursor`` on; so small that none is pinned.

        Raises:
            ValueError: the batch does not divide into ``world`` ranks of ``accumulation`` micro-batches each.
        """
        positions_of_rank(cursor, self.config.batch, rank, world)  # refuses what is no place in the stream
        check_micro_batches(self.config.batch, world, accumulation)
        return SyntheticBatches(self.config, self.seed, cursor, rank, world)


class SyntheticBatches:
    """An endless iterator over ``Batch``, drawn in the caller's thread when it is asked for."""

    def __init__(self, config: SyntheticConfig, seed: int, cursor: int, rank: int, world: int) -> None:
        self.waiting_seconds = 0.0
        self.skipped = 0
        self._config, self._seed, self._cursor = config, seed, cursor
        self._rank, self._world = rank, world

    def __enter__(self) -> SyntheticBatches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to close."""

    def __iter__(self) -> SyntheticBatches:
        return self

    def __next__(self) -> Batch:
        started = time.perf_counter()
        positions = positions_of_rank(self._cursor, self._config.batch, self._rank, self._world)
        x = torch.from_numpy(self._config.samples(self._seed, positions.start, len(positions)))
        self._cursor += self._config.batch
        self.waiting_seconds += time.perf_counter() - started
        index = torch.arange(positions.start, positions.stop)
        return Batch(x, None, index, self._cursor, self._config.batch)


def as_images(vectors: np.ndarray) -> Samples:
    """Vectors [count, c] as images of one pixel with c channels."""
    images: Samples = vectors.astype(np.float32)[:, :, None, None]
    return images


def sample_words(seed: int, start: int, count: int, words: int) -> np.ndarray:
    """At least ``words`` random words for each of the positions start .. start + count - 1."""
    blocks = -(-words // 4)
    flat = position_words(seed, Purpose.SYNTHESIS, start * blocks, count * blocks)
    return flat.reshape(count, 4 * blocks)[:, :words]


def unit_interval(words: np.ndarray) -> np.ndarray:
    """The words' upper 53 bits in (0, 1): never an end."""
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(words: np.ndarray) -> np.ndarray:
    """Standard normal numbers in place of words of an even count in each row, by Box and Muller's transform."""
    u, v = unit_interval(words[:, 0::2]), unit_interval(words[:, 1::2])
    radius, angle = np.sqrt(-2 * np.log(u)), 2 * math.pi * v
    pairs = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1)
    return pairs.reshape(len(words), -1)
