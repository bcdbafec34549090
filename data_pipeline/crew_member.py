"""One process of a crew, `python -m data_pipeline.crew_member FD`: it ends when its pipe does."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection

SECONDS_BETWEEN = 0.1  # that it tells how far it is


class Teller:
    """Adds up what a job tells and passes it on now and then."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._amount = 0
        self._last = time.monotonic()

    def __call__(self, amount: int) -> None:
        self._amount += amount
        if time.monotonic() > self._last + SECONDS_BETWEEN:
            self.flush()

    def flush(self) -> None:
        self._pipe.send(("told", self._amount))
        self._amount, self._last = 0, time.monotonic()


def serve(pipe: Connection) -> None:
    """Does the job with one task after another, until nobody is at the other end."""
    job, tell = pipe.recv(), Teller(pipe)
    while True:
        task = pipe.recv()
        try:
            result = job(task, tell)
        except BrokenPipeError:
            raise
        except (ValueError, OSError, EOFError) as error:  # an end of the job's own files, and not of the pipe
            pipe.send(("refused" if isinstance(error, ValueError) else "failed", str(error)))
            continue
        tell.flush()
        pipe.send(("done", result))


def main() -> None:
    """An interrupt from the keyboard reaches every process of the group; it is for the first one to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the other end is gone: done, or killed
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
