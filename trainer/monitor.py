"""What is seen of a run while it trains: TensorBoard, a log file, and a bar or plain lines on the terminal."""

from __future__ import annotations

import logging
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from trainer.distributed import World
from trainer.run import Run
from trainer.schedules import Every
from trainer.tally import Report, Sums, Tally, first_bad, means

UNSAVED = (
    "none of the row was saved. The same command resumes from the last checkpoint; a smaller "
    "optimizer.learning_rate may help"
)
SKEWED = 1.2  # of the median: a rank that differs by more is named


@dataclass(frozen=True)
class Seen:
    """What one rank tells the others at a look.

    waiting: the share of the time that it waited for data. skipped: samples passed over, in all. own_seconds: of a
    step's lap and its waiting for data.
    """

    sums: Sums
    waiting: float
    skipped: int
    gigabytes: float
    own_seconds: float


def summary(everyones: Sequence[Seen]) -> dict[str, float]:
    """The scalars that are of all ranks, by TensorBoard tag."""
    waiting = [seen.waiting for seen in everyones]
    scalars = means([seen.sums for seen in everyones]) | {
        "skipped_steps": everyones[0].sums.skipped,
        "speed/waiting_for_data": statistics.fmean(waiting),
        "data/skipped": sum(seen.skipped for seen in everyones),
        "memory/gigabytes": max(seen.gigabytes for seen in everyones),
    }
    return scalars if len(everyones) == 1 else scalars | {"speed/waiting_for_data_worst": max(waiting)}


def outliers(everyones: Sequence[Seen]) -> str:
    """The ranks that stand out from the median, for the log: by waiting for data, and by what makes a step slow.

    A rank makes the others wait where its laps and its waiting for data are long; see `Lap` for what that can see.
    """
    found, waiting = "", [seen.waiting for seen in everyones]
    if max(waiting) > max(0.05, SKEWED * statistics.median_low(waiting)):
        found += f"  rank {waiting.index(max(waiting))} waits {max(waiting):.1%}"
    own = [seen.own_seconds for seen in everyones]
    if max(own) > SKEWED * statistics.median_low(own):
        found += f"  rank {own.index(max(own))} is slowest {max(own) / statistics.median_low(own) - 1:+.0%}"
    return found


class Monitor:
    """The one record of a run's scalars. Events past the images that the run resumes from are taken back.

    Only the main rank writes.
    """

    def __init__(self, run: Run, world: World, images: int, device: torch.device) -> None:
        self.every = Every(run.run.log_every)
        self.budget, self.device, self.world = run.run.images, device, world
        self.steps, self.bad_steps = run.process.steps, run.run.bad_steps
        self.tally = Tally(run.process.steps, device)
        self.is_main = world.is_main
        self.latest = images, 0.0, 0.0, 0
        self.open, self.found = (
            0,
            "",
        )  # bad steps that no good one has followed at the last look, and what was found
        self.started = self.seen = images
        self.clock, self.waited = time.monotonic(), 0.0
        if self.is_main:
            self.writer = SummaryWriter(str(run.directory), purge_step=images + 1)
            self.file = logging.FileHandler(run.directory / "train.log")
            self.file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            logging.getLogger().addHandler(self.file)
            self.bar = tqdm(total=self.budget, initial=images, unit="img", unit_scale=True, disable=None)
            config = run.directory / "config.yaml"
            if config.exists():
                self.writer.add_text("config", f"```yaml\n{config.read_text()}```", images)

    def record(self, report: Report, images: int, batch: int, waited: float, skipped: int = 0) -> None:
        """A step has been made. waited: seconds of waiting for data; skipped: samples passed over; both in all."""
        self.tally.add(report, images)
        self.latest = images, report.learning_rate, waited, skipped
        if self.every.due(images, batch):
            self.look()

    def look(self, last: bool = False) -> bool:
        """Writes down the means over all ranks since the last look, waiting for the device and for every rank.

        Answers whether the run may be saved as it is: not after a bad step, as a run that resumed from there would
        have forgotten the row. Raises FloatingPointError, on every rank, once more than `run.bad_steps` steps in a
        row had a loss or a gradient that was not finite, or where the last step of the run had.
        """
        if self.tally.steps:
            self._look()
        if last and self.open:
            raise FloatingPointError(f"{self.found}. A run does not finish on a bad step; {UNSAVED}")
        return not self.open

    def _look(self) -> None:
        images, learning_rate, waited, skipped = self.latest
        steps, sums, now = self.tally.steps, self.tally.clear(), time.monotonic()
        seconds = now - self.clock
        waiting = (waited - self.waited) / seconds
        own = sums.own_seconds + (waited - self.waited) / steps
        everyones = self.world.everyones(Seen(sums, waiting, skipped, memory_gigabytes(self.device), own))
        scalars = summary(everyones) | {
            "learning_rate": learning_rate,
            "speed/images_per_second": (images - self.seen) / seconds,
        }
        self.clock, self.waited, self.seen = now, waited, images
        if self.is_main:
            try:
                for tag, value in scalars.items():
                    self.writer.add_scalar(tag, value, images)
                self.writer.flush()
                self._tell(scalars, images, outliers(everyones) if self.world.size > 1 else "")
            except OSError as error:
                raise OSError(
                    f"could not write the scalars and the log in {self.writer.log_dir}: {error}"
                ) from error
        self._judge([seen.sums for seen in everyones], steps, images)

    def _judge(self, everyones: list[Sums], steps: int, images: int) -> None:
        """Tells of bad steps, and ends the run where too many came in a row; every rank judges alike."""
        row, self.open = (max(getattr(sums, name) for sums in everyones) for name in ("row", "open"))
        if not row:
            return
        self.found = (
            f"{everyones[0].skipped} of the {steps} steps up to image {images} skipped, {row} bad in a row; the "
            f"first {first_bad(everyones, self.steps)}"
        )
        self.note(f"warning: {self.found}")
        if row > self.bad_steps:
            raise FloatingPointError(
                f"{self.found}. More than run.bad_steps={self.bad_steps} in a row end the run; {UNSAVED}"
            )

    def _tell(self, scalars: dict[str, float], images: int, remarks: str) -> None:
        rate, waiting = scalars["speed/images_per_second"], scalars["speed/waiting_for_data"]
        left = timedelta(seconds=round(max(0, self.budget - images) / rate))
        line = (
            f"{images}/{self.budget} images  loss {scalars['loss']:.4f}  gradient {scalars['gradient_norm']:.3f}  "
            f"{rate:.0f} img/s  waiting {waiting:.1%}  left {left}"
        )
        if scalars["data/skipped"]:
            line += f"  skipped {scalars['data/skipped']}"
        line += remarks
        self.bar.set_postfix(loss=f"{scalars['loss']:.4f}", refresh=False)
        self.bar.update(images - self.bar.n)
        self.note(line, also_terminal=self.bar.disable)

    def note(self, line: str, also_terminal: bool = True) -> None:
        """A line for the log file, and for the terminal above the bar."""
        if self.is_main:
            self.file.emit(logging.LogRecord("quasistatic", logging.INFO, "", 0, line, None, None))
            if also_terminal:
                self.bar.write(line, file=sys.stdout)
                sys.stdout.flush()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done within it, saving or drawing, does not count as training time."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.clock += time.monotonic() - start

    def picture(self, tag: str, image: UInt8[Tensor, "3 H W"], images: int) -> None:
        """A picture for TensorBoard."""
        if self.is_main:
            self.writer.add_image(tag, image, images)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_main:
            self.bar.close()
            logging.getLogger().removeHandler(self.file)
            # A disk that is full fails here again; the first error is the one to tell.
            with suppress(OSError) if error else nullcontext():
                self.writer.close()
                self.file.close()


def memory_gigabytes(device: torch.device) -> float:
    """The most memory held so far: of the accelerator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
