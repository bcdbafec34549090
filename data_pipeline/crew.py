"""Crew: processes that each do one task after another, and a plain error where one of them dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")
Tell: TypeAlias = Callable[[int], None]
Progress: TypeAlias = Callable[[int, int], None]

CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)


def silent(done: int, total: int) -> None:
    """Progress that nobody follows."""


class Summed:
    """Passes on as progress, (done, total), what jobs tell piece by piece."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._done, self._total = 0, total

    def __call__(self, amount: int) -> None:
        self._done += amount
        self._progress(self._done, self._total)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def carried_out(
    job: Callable[[T, Tell], R], tasks: Sequence[T], *, workers: int, tell: Tell
) -> Iterator[tuple[int, R]]:
    """(number of the task, what the job made of it), as the tasks are done; in this process with one worker.

    A job is sent to each process once, so it is a value that can be pickled, of a module that can be imported,
    and opens its files where it runs.
    The processes are started anew and not forked: no open file, map or lock of ours is shared with them.

    Args:
        tell: called with how much more has been done, as often as a job tells.

    Raises:
        ValueError, OSError: what a job raised.
        ChildProcessError: a process died; names the task that it was at.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if min(workers, len(tasks)) <= 1:
        yield from ((number, job(task, tell)) for number, task in enumerate(tasks))
        return
    members = [_Member() for _ in range(min(workers, len(tasks)))]
    try:
        yield from _shared_out(members, job, tasks, tell)
        for member in members:
            member.dismiss()
    finally:
        for member in members:
            member.end()


def _shared_out(
    members: list[_Member], job: Callable[[T, Tell], R], tasks: Sequence[T], tell: Tell
) -> Iterator[tuple[int, R]]:
    numbers = iter(range(len(tasks)))
    for member in members:
        member.give(job)
        member.take_up(next(numbers), tasks)
    busy = {member.pipe: member for member in members}
    while busy:
        for pipe in wait(list(busy)):
            member = busy[cast(Connection, pipe)]
            kind, value = member.hear()
            if kind == "told":
                tell(value)
                continue
            yield member.number, value
            number = next(numbers, None)
            if number is None:
                del busy[member.pipe]
            else:
                member.take_up(number, tasks)


class _Member:
    """One process, the end of the pipe to it that is ours, and the task that it is at."""

    def __init__(self) -> None:
        self.number, self._task = -1, "its beginning"
        self.pipe, theirs = Pipe()
        descriptor = theirs.fileno()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "data_pipeline.crew_member", str(descriptor)],
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        theirs.close()

    def take_up(self, number: int, tasks: Sequence[object]) -> None:
        self.number, self._task = number, str(tasks[number])
        self.give(tasks[number])

    def give(self, value: object) -> None:
        try:
            self.pipe.send(value)
        except CLOSED:
            self._died()

    def hear(self) -> tuple[str, Any]:
        """What it says next: ("told", amount) or ("done", result)."""
        try:
            kind, value = self.pipe.recv()
        except CLOSED:
            self._died()
        if kind == "refused":
            raise ValueError(value)
        if kind == "failed":
            raise OSError(value)
        return kind, value

    def dismiss(self) -> None:
        """Let it end by itself."""
        self.pipe.close()
        self._process.wait()

    def end(self) -> None:
        """Nothing is left of it, whatever it was doing."""
        self.pipe.close()
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def _died(self) -> None:
        status = self._process.wait()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise ChildProcessError(
            f"the process at {self._task} {how}; what is finished is kept, and the same command goes on from there"
        )
