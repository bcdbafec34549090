"""The checkpoints that lie in a directory, and how one is added or taken away: whole or not at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

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

    def begin(self, images: int) -> None:
        """Makes an empty directory to write a checkpoint into, not yet under its name."""
        shutil.rmtree(self.partial(images), ignore_errors=True)
        self.partial(images).mkdir(parents=True)

    def partial(self, images: int) -> Path:
        """The name of a checkpoint that is not yet whole."""
        return self.named(images).with_suffix(PARTIAL)

    def commit(self, images: int) -> None:
        """The checkpoint is whole, and gets its name. Then the oldest go."""
        sync(self.partial(images))
        self.partial(images).rename(self.named(images))
        sync(self.directory)
        for old in self.all()[: -self.keep] if self.keep else []:
            shutil.rmtree(old.rename(old.with_suffix(PARTIAL)))  # never half a checkpoint under a whole one's name

    def clear(self) -> None:
        """Takes away what a dying process left behind. No other process may be writing."""
        for torn in self.directory.glob(f"*{PARTIAL}"):
            shutil.rmtree(torn)


def sync(path: Path) -> None:
    """Waits until a file or a directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
