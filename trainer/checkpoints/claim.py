"""Which launch of a run may write its checkpoints: the one that began last."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from data_pipeline.atomic import atomically


class Superseded(OSError):
    """Another launch of the run writes its checkpoints now."""


@dataclass(frozen=True)
class Claim:
    """A launch's claim to a directory of checkpoints, in a file beside it.

    Processes may outlive their launch, as where a node is lost and the job queued again, and a command may be
    given twice. Each launch writes under names of its own, and looks here before it gives a checkpoint its name.
    """

    directory: Path
    token: str

    @classmethod
    def new(cls, directory: Path) -> Claim:
        """With a token that no other launch has."""
        return cls(directory, uuid4().hex[:8])

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.directory.with_name(f"{self.directory.name}.writer")

    def take(self) -> None:
        """From now on no other launch commits."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        since = time.strftime("%F %T")
        holder = {"token": self.token, "host": platform.node(), "process": os.getpid(), "since": since}
        with atomically(self.path) as file:
            file.write(json.dumps(holder).encode())

    def check(self) -> None:
        """Raises Superseded where another launch has claimed the directory since."""
        try:
            document = json.loads(self.path.read_text())
            token, host, process, since = (document[each] for each in ("token", "host", "process", "since"))
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"{self.path} is damaged and cannot tell which launch may save: {error}") from error
        if token != self.token:
            raise Superseded(
                f"process {process} on {host} writes the checkpoints of this run since {since} ({self.path}); of "
                "two launches with one run.directory the later one goes on"
            )
