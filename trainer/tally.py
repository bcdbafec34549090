"""What the steps since the last look amount to, summed on the device so that no step waits for the host."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from models.objectives import Terms
from trainer.lap import Lap

QUARTERS = 4
NAMED = 8  # each rank names at most so many bad samples
RANKS = 4  # at most so many ranks name theirs
FOLD = 64


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
    number. skipped: steps whose gradient was not finite. row: the most bad steps one after the other. open: those
    at the end, which no good step has followed yet. own_seconds: the median of the steps' laps.
    """

    loss: tuple[float, ...]
    count: tuple[float, ...]
    norm: float
    moved: int
    skipped: int
    row: int
    open: int
    bad: BadStep | None
    own_seconds: float


class Tally:
    """Sums over the steps since the last look.

    A step is bad where its gradient's norm, which is the same on every rank, or a loss of this rank is not finite.
    The engine has skipped it on every rank where the norm is not finite, as it is after nearly any such loss.

    Steps are kept as they come and added up `FOLD` at a time, which costs a step next to nothing.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        self.process_steps = steps
        self.quarters = torch.arange(QUARTERS, device=device)
        # loss and count by quarter, norm, moved, skipped
        self.sums = torch.zeros(2 * QUARTERS + 3, dtype=torch.float64, device=device)
        # bad steps up to now without a good one between, and the most of them
        self.row, self.longest = torch.zeros(2, dtype=torch.int64, device=device)
        # the first bad step: its number (negative: there was none), first, last, count, then indices and their t
        self.bad = torch.full((4 + 2 * NAMED,), -1, dtype=torch.int64, device=device)
        self.images: list[int] = []
        self.laps: list[Lap] = []
        self._kept: list[tuple[Tensor, ...]] = []

    @property
    def steps(self) -> int:
        """How many there were since the last look."""
        return len(self.images)

    def add(self, report: Report, images: int) -> None:
        """One step, after which so many images have been seen."""
        self.images.append(images)
        self.laps.append(report.lap)
        norm = report.gradient_norm.clone()  # an engine may write the next one over it
        self._kept.append((report.terms.loss, report.terms.t, norm, report.index))
        if len(self._kept) == FOLD:
            self._fold()

    def _fold(self) -> None:
        """Adds up what was kept. Each loss counts in the quarter of 1..T that its t lies in."""
        loss, t, norm, index = (torch.stack(each) for each in zip(*self._kept, strict=True))
        fine, moves = loss.isfinite(), norm.isfinite()
        quarter = (t - 1) * QUARTERS // self.process_steps
        belongs = (quarter[..., None] == self.quarters) & fine[..., None]
        losses = torch.where(belongs, loss[..., None].double(), 0).sum((0, 1))
        norms = torch.stack([torch.where(moves, norm.double(), 0).sum(), moves.sum(), (~moves).sum()])
        self.sums += torch.cat([losses, belongs.sum((0, 1)), norms])
        bad = ~(moves & fine.all(1))
        rows = rows_of(bad, self.row)
        self.row, self.longest = rows[-1], torch.maximum(self.longest, rows.max())
        found = first_of(bad, fine, t, index, self.steps - len(bad))
        self.bad = torch.where(bad.any() & (self.bad[0] < 0), found, self.bad)
        self._kept = []

    def clear(self) -> Sums:
        """The sums: the one place where the host waits. They begin anew; a row of bad steps goes on."""
        if self._kept:
            self._fold()
        sums, longest, row = self.sums.tolist(), int(self.longest), int(self.row)
        norm, moved, skipped = sums[2 * QUARTERS :]
        loss, count = tuple(sums[:QUARTERS]), tuple(sums[QUARTERS : 2 * QUARTERS])
        bad, own = read(self.bad.tolist(), self.images), statistics.median(lap.seconds() for lap in self.laps)
        self.sums.zero_()
        self.longest = torch.zeros_like(self.row)
        self.bad.fill_(-1)
        self.images, self.laps = [], []
        return Sums(loss, count, norm, int(moved), int(skipped), longest, row, bad, own)


def rows_of(bad: Bool[Tensor, " n"], before: Int64[Tensor, ""]) -> Int64[Tensor, " n"]:
    """How many steps up to each one were bad without a good one between; `before` came before the first."""
    number = torch.arange(len(bad), device=bad.device)
    good = torch.where(bad, -1, number).cummax(0).values
    return number - good + torch.where(good < 0, before, 0)


def first_of(
    bad: Bool[Tensor, " n"],
    fine: Bool[Tensor, "n b"],
    t: Int64[Tensor, "n b"],
    index: Int64[Tensor, "n b"],
    number: int,
) -> Int64[Tensor, " k"]:
    """The first bad one of steps `number` and on, as `Tally.bad` holds it; some step where none is bad.

    The host does not know which one it is: it would have to wait.
    """
    step = bad.int().argmax()[None]
    fine, t, index = (each.index_select(0, step)[0] for each in (fine, t, index))
    samples = fine.int().argsort(stable=True)[:NAMED]  # those that are not fine come first
    named = index.new_full((2, NAMED), -1)
    named[:, : len(samples)] = torch.where(fine[samples], -1, torch.stack([index, t])[:, samples])
    return torch.cat([step + number, index[:1], index[-1:], (~fine).sum()[None], named.flatten()])


def read(bad: Sequence[int], images: Sequence[int]) -> BadStep | None:
    """What `first_of` wrote. images: seen after each step."""
    step, first, last, count, *named = bad
    if step < 0:
        return None
    pairs = zip(named[:NAMED], named[NAMED:], strict=True)
    return BadStep(images[step], first, last, count, {index: t for index, t in pairs if index >= 0})


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
        more = f"; and on {len(blamed) - RANKS} more ranks" if len(blamed) > RANKS else ""
        return f"at image {images}, where the loss was not finite on {'; '.join(blamed[:RANKS])}{more}"
    low, high = min(bad.first for _, bad in first), max(bad.last for _, bad in first)
    return f"at image {images}, where only the gradient was not finite, of the samples {low} to {high}"


def named(bad: BadStep, steps: int) -> str:
    """The samples that a rank blames."""
    each = [
        f"sample {index} (t={t}, quarter {1 + (t - 1) * QUARTERS // steps})" for index, t in bad.samples.items()
    ]
    more = bad.count - len(bad.samples)
    return ", ".join(each) + (f" and {more} more" if more else "")
