"""A watch over a run that stands still: which ranks are behind, and where each one is."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType

import torch.distributed as dist
from torch._C._distributed_c10d import _dump_fr_trace_json

from trainer.distributed import LostRank, World, is_broken_exchange
from trainer.run import Run

ROOT = Path(__file__).parents[1]
OURS = tuple(f"{ROOT / package}{os.sep}" for package in ("trainer", "models", "data_pipeline", "launch"))
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Note:
    """What a rank says of itself every few seconds.

    images: seen at its last step. exchanges: collectives begun on the host; a rank that waits in one has begun
    more than those that it waits for. place: the line of ours that its main thread is in. failed: what ended it.
    """

    images: int
    exchanges: int
    place: str
    host: str
    at: float
    failed: str = ""


class Watch:
    """Within it a thread of each process notes how far it is, and reports when no step is made for too long.

    The notes lie in the store by which the ranks met. Half the patience without a step, or nine tenths before the
    first one, for which engines are built and networks compiled, is too long: then every rank writes its main
    thread's stack and its last collectives to hang/ in the run directory, and the main rank writes and logs which
    ranks are where. A long preview or a long save may be reported too; a report changes nothing.

    On an accelerator a step is made when the host has given it out: one that hangs there is seen at the next look.
    """

    def __init__(self, run: Run, world: World) -> None:
        self.directory, self.patience, self.world = run.directory / "hang", run.run.patience, world
        self.beat = min(10.0, self.patience / 60)
        self.images, self.since, self.steps = 0, time.monotonic(), 0
        self.board = world.board()
        self.main = threading.main_thread().ident
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def begin(self, images: int) -> None:
        """All is built, and the run goes on from so many images."""
        self.images, self.since = images, time.monotonic()

    def step(self, images: int) -> None:
        """A step has been made."""
        self.images, self.since, self.steps = images, time.monotonic(), self.steps + 1

    def __enter__(self) -> Watch:
        if self.world.size > 1:  # NCCL, which makes no folder, may dump there as well
            self.directory.mkdir(parents=True, exist_ok=True)
        self._post(self._note())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()
        if error is not None and is_broken_exchange(error):
            raise LostRank(self._lost(error)) from error
        if error is not None:
            self._post(self._note(failed=f"{type(error).__name__}: {error}"))

    def _lost(self, error: BaseException) -> str:
        where = innermost(list(traceback.walk_tb(error.__traceback__)))
        said = str(error).splitlines()[0].partition(" This is typically")[0]  # gloo goes on with a guess
        last = "its last step" if self.steps else "it began"
        return (
            f"rank {self.world.rank} lost the others after image {self.images}, {self.stood:.0f} s after {last}, "
            f"in {where}: {said.rstrip('. ')}. {blamed(self._notes(), self.world.rank)}"
        )

    @property
    def stood(self) -> float:
        """Seconds since the last step."""
        return time.monotonic() - self.since

    def _watch(self) -> None:
        reported = -1
        while not self._left.wait(self.beat):
            self._post(self._note())
            if self.stood > self.patience * (0.5 if self.steps else 0.9) and reported < self.steps:
                reported = self.steps
                try:
                    self._report()
                except OSError as error:  # a full disk, say; the watch goes on
                    log.warning("could not write the stacks to %s: %s", self.directory, error)

    def _report(self) -> None:
        rank, size = self.world.rank, self.world.size
        stood = f"rank {rank} of {size}: no step for {self.stood:.0f} s, after image {self.images}"
        stack = "".join(traceback.format_stack(sys._current_frames()[self.main]))
        if self.world.is_main:
            self._left.wait(2 * self.beat)  # until the others' notes say that they stand still as well
            stood += "".join(f"\n  {line}" for line in places(self._notes()))
            log.warning("%s\n  the stacks are in %s", stood, self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f"rank-{rank:05d}"
        with (self.directory / f"{name}.txt").open("a") as file:
            file.write(f"{time.strftime('%F %T')}  {platform.node()}, process {os.getpid()}\n{stood}\n\n{stack}\n")
        (self.directory / f"{name}.json").write_bytes(_dump_fr_trace_json())

    def _note(self, failed: str = "") -> Note:
        frame = sys._current_frames()[self.main]
        place = innermost(list(traceback.walk_stack(frame))[::-1])
        return Note(self.images, exchanges(), place, platform.node(), time.time(), failed)

    def _post(self, note: Note) -> None:
        """Leaves a note; where the store has gone with the process that kept it, nobody is left to read it."""
        with self._asking():
            if self.board is not None:
                self.board.set(f"watch/{self.world.rank}", json.dumps(asdict(note)))

    def _notes(self) -> dict[int, Note]:
        """The last note of every rank; only this one's where the store cannot be asked."""
        with self._asking():
            if self.board is not None:
                found = self.board.multi_get([f"watch/{rank}" for rank in range(self.world.size)])
                return {rank: Note(**json.loads(note)) for rank, note in enumerate(found)}
        return {self.world.rank: self._note()}

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Within it the store may fail: it is asked again at the next beat, unless the connection is lost."""
        try:
            yield
        except dist.DistNetworkError:
            self.board = None
        except dist.DistError as error:
            log.info("the store of notes did not answer: %s", error)


def exchanges() -> int:
    """How many collectives this process has begun on the CPU, where there is at least one in each step."""
    status = json.loads(_dump_fr_trace_json(includeCollectives=False))["pg_status"]
    return sum(int(group["last_enqueued_collective"]) for group in status.values())


def innermost(stack: Sequence[tuple[FrameType, int]]) -> str:
    """The innermost line of ours, from a stack with the innermost frame last.

    World only passes on what others say to each other; who asked it tells more.
    """
    for frame, line in reversed(stack):
        name = frame.f_code.co_filename
        if name.startswith(OURS) and not name.endswith("trainer/distributed.py"):
            return f"{Path(name).relative_to(ROOT)}:{line} {frame.f_code.co_name}()"
    return "no line of this system"


def places(notes: Mapping[int, Note]) -> Iterator[str]:
    """Where the ranks are, those that are furthest behind first."""
    groups = defaultdict(list)
    for rank, note in notes.items():
        groups[note.images, note.exchanges, note.failed or f"in {note.place}"].append(rank)
    for (images, begun, place), ranks in sorted(groups.items()):
        hosts = sorted({notes[rank].host for rank in ranks})
        on = f" on {', '.join(hosts)}" if len(hosts) <= 4 else ""
        yield f"{spans(ranks)}{on}: image {images}, {begun} exchanges begun, {place}"


def spans(ranks: Sequence[int]) -> str:
    """Ranks in words: rank 3, ranks 0-5, 7."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and runs[-1][-1] == rank - 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    words = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"rank {words}" if len(ranks) == 1 else f"ranks {words}"


def blamed(notes: Mapping[int, Note], own: int) -> str:
    """Who is to blame for a lost exchange, by the notes."""
    failed = [f"rank {rank} ended with {note.failed}" for rank, note in notes.items() if note.failed]
    if failed:
        return "; ".join(failed[:4])
    if len(notes) == 1:
        return "Nor does the store of notes answer, which is kept by rank 0, unless torchrun keeps it"
    now = time.time()
    heard = sorted((now - note.at, rank) for rank, note in notes.items() if rank != own)[::-1]
    ages = [f"rank {rank} {seconds:.0f} s ago" for seconds, rank in heard]
    return f"Last heard of: {', '.join(ages[:8])}. Where they were: {'; '.join(list(places(notes))[:4])}"


def record_flights(directory: Path) -> None:
    """Lets torch keep its last collectives and dump them to hang/ where NCCL times out, unless the user chose.

    To be called before the ranks meet.
    """
    dump = str(directory / "hang" / "nccl-rank-")
    for name, value in {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": dump,
        "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": dump,
    }.items():
        os.environ.setdefault(name, value)
