"""The checkpoints that lie in a directory, and how one is added or taken away: whole or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial"


@dataclass
class Listing:
    """A run's checkpoints, by the images seen. The newest `keep` of them are kept; 0 keeps all.

    One is written under another name and renamed when all of it is on the disk, so the newest directory is the
    newest whole checkpoint, whenever the processes die.
    """

    directory: Path
    keep: int = 0

    def all(self) -> list[Path]:
        """Every whole checkpoint, oldest first."""
        return sorted(path for path in self.directory.glob("*") if path.name.isdecimal())

    def latest(self) -> Path:
        """The newest whole checkpoint. Raises ValueError where there is none."""
        found = self.all()
        if not found:
            raise ValueError(f"{self.directory} holds no checkpoint; has the run saved one yet?")
        return found[-1]

    def at(self, images: int) -> Path:
        """The checkpoint after so many images; 0 means the newest. Raises ValueError where it is not there."""
        if not images:
            return self.latest()
        found = self.named(images)
        if not found.is_dir():
            there = ", ".join(str(int(path.name)) for path in self.all()) or "none"
            raise ValueError(f"{self.directory} holds no checkpoint after {images} images; it holds {there}")
        return found

    def named(self, images: int) -> Path:
        """Where the checkpoint after so many images lies, or would."""
        return self.directory / f"{images:012d}"

    def partial(self, images: int, token: str) -> Path:
        """The name of a checkpoint that is not yet whole. token: of the launch that writes it."""
        return self.directory / f"{images:012d}.{token}{PARTIAL}"

    def begin(self, partial: Path) -> None:
        """Makes an empty directory to write a checkpoint into, not yet under its name."""
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)

    def commit(self, partial: Path, images: int) -> None:
        """The checkpoint is whole, and gets its name."""
        sync(partial)
        partial.rename(self.named(images))
        sync(self.directory)

    def retire(self) -> None:
        """The oldest go, as far as they are more than are kept."""
        for old in self.all()[: -self.keep] if self.keep else []:
            self._remove(old)

    def clear(self) -> None:
        """Takes away what is not whole, whoever left it behind or still writes it."""
        for torn in self.directory.glob(f"*{PARTIAL}"):
            with suppress(FileNotFoundError):  # whoever writes it may take it away as well
                self._remove(torn)

    def _remove(self, path: Path) -> None:
        """By way of a new name: never half a checkpoint under a whole one's, nor one that is still committed."""
        shutil.rmtree(path.rename(self.directory / f"{path.name.partition('.')[0]}.{uuid4().hex[:8]}{PARTIAL}"))


def sync(path: Path) -> None:
    """Waits until a file or a directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
