"""Crews: the same results with any number of processes, errors passed on, and a dead process named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_pipeline.crew import Tell, carried_out

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Times:
    """Multiplies; and does other things at certain numbers."""

    factor: int

    def __call__(self, task: int, tell: Tell) -> int:
        tell(1)
        if task == 13:
            raise ValueError("unlucky")
        if task == 28:
            raise FileNotFoundError(2, "no such number", "28")
        if task == 29:
            raise EOFError("the file ended too early")
        if task == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        if task == 11:
            os._exit(3)
        if task == 1000:
            time.sleep(60)
        return self.factor * task


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_with_their_numbers(workers: int) -> None:
    told: list[int] = []
    results = dict(carried_out(Times(3), [1, 2, 4, 8], workers=workers, tell=told.append))
    assert results == {0: 3, 1: 6, 2: 12, 3: 24}
    assert sum(told) == 4


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        (13, ValueError, "unlucky"),
        (28, OSError, "no such number"),
        (29, OSError, "the file ended too early"),
        (9, ChildProcessError, "the process at 9 was killed by signal 9; what is finished is kept"),
        (11, ChildProcessError, "the process at 11 ended with status 3"),
    ],
)
def test_an_error_ends_the_crew_and_says_where(task: int, error: type[Exception], message: str) -> None:
    started = time.monotonic()
    with pytest.raises(error, match=message):
        dict(carried_out(Times(1), [1, 1000, task], workers=2, tell=lambda amount: None))
    assert time.monotonic() - started < 30  # the one that sleeps is not waited for
    assert not members_of(os.getpid())


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        list(carried_out(Times(1), [1], workers=0, tell=lambda amount: None))


SLOW = """
import signal
from tests.data_pipeline.test_crew import Slow
from data_pipeline.crew import carried_out
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background inherits none
list(carried_out(Slow(), list(range(100)), workers=2, tell=lambda amount: print("told", flush=True)))
"""


@dataclass(frozen=True)
class Slow:
    """Tells for ten seconds that it is still at it."""

    def __call__(self, task: int, tell: Tell) -> None:
        for _ in range(100):
            time.sleep(0.1)
            tell(1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_crew_does_not_outlive_its_first_process(how: signal.Signals) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", SLOW],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "told\n"
    members = members_of(first.pid)
    assert len(members) == 2
    if how is signal.SIGINT:
        os.killpg(first.pid, how)  # as the keyboard does: every process of the group gets it
    else:
        os.kill(first.pid, how)
    _, errors = first.communicate(timeout=30)
    assert errors.count("Traceback") == (how is signal.SIGINT)  # the first process's own, and no other
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{member}").exists() for member in members):
        assert time.monotonic() < deadline, "a member is left"
        time.sleep(0.05)


def members_of(process: int) -> list[int]:
    """The crew members that a process started and that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        parent = int(status.rsplit(")", 1)[1].split()[1])
        if parent == process and b"data_pipeline.crew_member" in command:
            found.append(int(folder.name))
    return found
