"""Access: how remote shards are fetched and where they are kept."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

LEAST_RATE = 64 * 1024  # bytes a second: whoever sends less for long is given up


@dataclass(frozen=True)
class Access:
    """How remote shards are fetched, and where the processes of a node keep them.

    Attributes:
        cache: the folder, or the empty string for one of the user's own among the temporary files.
        cache_bytes: how much it holds at most.
        timeout: seconds without a byte after which a connection is given up.
        retries: how often in a row a file is asked for again without a byte gained.
        pause: seconds before the first of these; they double up to half a minute.
    """

    cache: str = ""
    cache_bytes: int = 32 * 2**30
    timeout: float = 30.0
    retries: int = 8
    pause: float = 0.5

    @property
    def folder(self) -> Path:
        return Path(self.cache or Path(tempfile.gettempdir()) / f"quasistatic-{os.getuid()}")

    def seconds(self, received: int) -> float:
        """How long a file may take that has sent so many bytes: no server holds a run for ever."""
        return 2 * self.timeout * (self.retries + 1) + received / LEAST_RATE  # as much again for the pauses


DEFAULT_ACCESS = Access()
