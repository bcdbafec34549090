"""What is seen of a run while it trains: TensorBoard, a log file, and a bar or plain lines on the terminal."""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from models.objectives import Terms
from trainer.distributed import World
from trainer.run import Run
from trainer.schedules import Every

QUARTERS = 4


@dataclass(frozen=True)
class Report:
    """What a step says of itself; its tensors stay on the device."""

    terms: Terms
    gradient_norm: Tensor
    learning_rate: float


class Tally:
    """Sums over the steps since the last look, on the device, so that no step waits for the host."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self.process_steps = steps
        self.quarters = torch.arange(QUARTERS, device=device)
        self.loss, self.count = torch.zeros(2, QUARTERS, dtype=torch.float64, device=device)
        self.norm = torch.zeros((), dtype=torch.float64, device=device)
        self.steps = 0

    def add(self, terms: Terms, gradient_norm: Tensor) -> None:
        """One step's losses, each in the quarter of 1..T that its t lies in, and its gradient norm."""
        quarter = (terms.t - 1) * QUARTERS // self.process_steps
        belongs = quarter[:, None] == self.quarters
        self.loss += torch.where(belongs, terms.loss[:, None].double(), 0).sum(0)
        self.count += belongs.sum(0)
        self.norm += gradient_norm
        self.steps += 1

    def scalars(self) -> dict[str, float]:
        """The means by TensorBoard tag: the one place where the host waits. Clears the sums."""
        loss, count = self.loss.tolist(), self.count.tolist()
        scalars = {"loss": sum(loss) / sum(count), "gradient_norm": float(self.norm) / self.steps}
        for number, (total, seen) in enumerate(zip(loss, count, strict=True), start=1):
            if seen:
                scalars[f"loss_by_t/quarter_{number}"] = total / seen
        for sums in (self.loss, self.count, self.norm):
            sums.zero_()
        self.steps = 0
        return scalars


class Monitor:
    """The one record of a run's scalars. Events past the images that the run resumes from are taken back.

    Only the main rank writes.
    """

    def __init__(self, run: Run, world: World, images: int, device: torch.device) -> None:
        self.every = Every(run.run.log_every)
        self.budget, self.device = run.run.images, device
        self.tally = Tally(run.process.steps, device)
        self.is_main = world.is_main
        self.latest = images, 0.0, 0.0, 0
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
        self.tally.add(report.terms, report.gradient_norm)
        self.latest = images, report.learning_rate, waited, skipped
        if self.every.due(images, batch):
            self.look()

    def look(self) -> None:
        """Writes down the means since the last look, waiting for the device.

        Raises FloatingPointError where the loss or a gradient was not finite; a checkpoint that is saved after a
        look therefore holds finite weights.
        """
        if not self.tally.steps:
            return
        images, learning_rate, waited, skipped = self.latest
        scalars = self.tally.scalars()
        now = time.monotonic()
        seconds = now - self.clock
        scalars |= {
            "learning_rate": learning_rate,
            "speed/images_per_second": (images - self.seen) / seconds,
            "speed/waiting_for_data": (waited - self.waited) / seconds,
            "data/skipped": skipped,
            "memory/gigabytes": memory_gigabytes(self.device),
        }
        self.clock, self.waited, self.seen = now, waited, images
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(scalars[name]):
                raise FloatingPointError(
                    f"the mean {name} up to image {images} is {scalars[name]}, so the weights are lost; the same "
                    "command resumes from the last checkpoint, where a smaller optimizer.learning_rate may help"
                )
        if self.is_main:
            try:
                for tag, value in scalars.items():
                    self.writer.add_scalar(tag, value, images)
                self.writer.flush()
                self._tell(scalars, images)
            except OSError as error:
                raise OSError(
                    f"could not write the scalars and the log in {self.writer.log_dir}: {error}"
                ) from error

    def _tell(self, scalars: dict[str, float], images: int) -> None:
        rate, waiting = scalars["speed/images_per_second"], scalars["speed/waiting_for_data"]
        left = timedelta(seconds=round(max(0, self.budget - images) / rate))
        line = (
            f"{images}/{self.budget} images  loss {scalars['loss']:.4f}  gradient {scalars['gradient_norm']:.3f}  "
            f"{rate:.0f} img/s  waiting {waiting:.1%}  left {left}"
        )
        if scalars["data/skipped"]:
            line += f"  skipped {scalars['data/skipped']}"
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
