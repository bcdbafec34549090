"""What the steps since the last look amount to, summed on the device so that no step waits for the host."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from models.objectives import Terms
from trainer.lap import Lap

QUARTERS = 4
NAMED = 8  # each rank names at most so many bad samples


@dataclass(frozen=True)
class Report:
    """What a step says of itself; its tensors stay on the device.

    index: the position of each sample in the endless global stream. lap: how long the rank worked by itself.
    """

    terms: Terms
    gradient_norm: Tensor
    learning_rate: float
    index: Int64[Tensor, " b"]
    lap: Lap


@dataclass(frozen=True)
class BadStep:
    """The first step since the last look whose loss or gradient was not finite, as one rank saw it.

    images: seen after it. first, last: the rank's samples in it. count: how many of their losses were not finite,
    and samples: up to `NAMED` of those, index → t. There is none where only the gradient was bad.
    """

    images: int
    first: int
    last: int
    count: int
    samples: dict[int, int]


@dataclass(frozen=True)
class Sums:
    """A tally, on the host.

    loss, count: of the finite losses, by quarter of t. norm, moved: of the finite gradient norms, and their
    number. skipped: steps whose gradient was not finite. row: the most bad steps one after the other.
    own_seconds: the median of the steps' laps.
    """

    loss: tuple[float, ...]
    count: tuple[float, ...]
    norm: float
    moved: int
    skipped: int
    row: int
    bad: BadStep | None
    own_seconds: float


class Tally:
    """Sums over the steps since the last look.

    A step is bad where its gradient's norm, which is the same on every rank, or a loss of this rank is not finite.
    The engine has skipped it on every rank where the norm is not finite, as it is after nearly any such loss.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        self.process_steps = steps
        self.quarters = torch.arange(QUARTERS, device=device)
        # loss and count by quarter, norm, moved, skipped
        self.sums = torch.zeros(2 * QUARTERS + 3, dtype=torch.float64, device=device)
        # bad steps up to now without a good one between, and the most of them
        self.row, self.longest = torch.zeros(2, dtype=torch.int64, device=device)
        # the first bad step: images (negative: there was none), first, last, count, then indices and their t
        self.bad = torch.full((4 + 2 * NAMED,), -1, dtype=torch.int64, device=device)
        self.laps: list[Lap] = []

    @property
    def steps(self) -> int:
        """How many there were since the last look."""
        return len(self.laps)

    def add(self, report: Report, images: int) -> None:
        """One step, after which so many images have been seen. Each loss counts in the quarter of its t."""
        terms, norm = report.terms, report.gradient_norm.double()
        fine, moves = terms.loss.isfinite(), norm.isfinite()
        quarter = (terms.t - 1) * QUARTERS // self.process_steps
        belongs = (quarter[:, None] == self.quarters) & fine[:, None]
        loss = torch.where(belongs, terms.loss[:, None].double(), 0).sum(0)
        norms = torch.stack([torch.where(moves, norm, 0), moves, ~moves])
        self.sums += torch.cat([loss, belongs.sum(0), norms])
        bad = ~(moves & fine.all())
        self.row = (self.row + 1) * bad
        self.longest = torch.maximum(self.longest, self.row)
        self.bad = torch.where(bad & (self.bad[0] < 0), described(report, images), self.bad)
        self.laps.append(report.lap)

    def clear(self) -> Sums:
        """The sums: the one place where the host waits. They begin anew; a row of bad steps goes on."""
        sums, longest, bad = self.sums.tolist(), int(self.longest), self.bad.tolist()
        norm, moved, skipped = sums[2 * QUARTERS :]
        own = statistics.median(lap.seconds() for lap in self.laps)
        self.sums.zero_()
        self.longest = torch.zeros_like(self.row)
        self.bad.fill_(-1)
        self.laps = []
        loss, count = tuple(sums[:QUARTERS]), tuple(sums[QUARTERS : 2 * QUARTERS])
        return Sums(loss, count, norm, int(moved), int(skipped), longest, read(bad), own)


def described(report: Report, images: int) -> Int64[Tensor, " n"]:
    """A step as `Tally.bad` holds it, good or bad: to ask which, the host would have to wait."""
    bad, index = ~report.terms.loss.isfinite(), report.index
    first = torch.sort(bad.int(), descending=True, stable=True).indices[:NAMED]
    named = index.new_full((2, NAMED), -1)
    named[:, : len(first)] = torch.where(bad[first], torch.stack([index, report.terms.t])[:, first], -1)
    return torch.cat([index.new_full((1,), images), index[:1], index[-1:], bad.sum()[None], named.flatten()])


def read(bad: Sequence[int]) -> BadStep | None:
    """What `described` wrote."""
    images, first, last, count, *named = bad
    if images < 0:
        return None
    pairs = zip(named[:NAMED], named[NAMED:], strict=True)
    return BadStep(images, first, last, count, {index: t for index, t in pairs if index >= 0})


def means(everyones: Sequence[Sums]) -> dict[str, float]:
    """The means over all ranks and steps of what was finite, by TensorBoard tag; nan where nothing was."""
    loss = [sum(each) for each in zip(*(sums.loss for sums in everyones), strict=True)]
    count = [sum(each) for each in zip(*(sums.count for sums in everyones), strict=True)]
    moved = sum(sums.moved for sums in everyones)
    scalars = {
        "loss": sum(loss) / sum(count) if sum(count) else math.nan,
        "gradient_norm": sum(sums.norm for sums in everyones) / moved if moved else math.nan,
    }
    for number, (total, seen) in enumerate(zip(loss, count, strict=True), start=1):
        if seen:
            scalars[f"loss_by_t/quarter_{number}"] = total / seen
    return scalars


def first_bad(everyones: Sequence[Sums], steps: int) -> str:
    """The first bad step of any rank in words: its images, and which samples at which t. steps: T of the process.

    Where no loss can be blamed, all samples of the step are named, as the gradient is that of all of them.
    """
    found = [(rank, sums.bad) for rank, sums in enumerate(everyones) if sums.bad is not None]
    images = min(bad.images for _, bad in found)
    first = [(rank, bad) for rank, bad in found if bad.images == images]
    blamed = [f"rank {rank}: {named(bad, steps)}" for rank, bad in first if bad.count]
    if blamed:
        return f"at image {images}, where the loss was not finite on {'; '.join(blamed)}"
    low, high = min(bad.first for _, bad in first), max(bad.last for _, bad in first)
    return f"at image {images}, where only the gradient was not finite, of the samples {low} to {high}"


def named(bad: BadStep, steps: int) -> str:
    """The samples that a rank blames."""
    each = [
        f"sample {index} (t={t}, quarter {1 + (t - 1) * QUARTERS // steps})" for index, t in bad.samples.items()
    ]
    more = bad.count - len(bad.samples)
    return ", ".join(each) + (f" and {more} more" if more else "")
