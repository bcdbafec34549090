"""The processes of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class World:
    """This process among all those of the run. Every rank calls every method, or none does."""

    rank: int = 0
    size: int = 1

    @classmethod
    def from_environment(cls) -> World:
        """The world that torchrun or srun describes. Raises ValueError for more than one process."""
        for variable in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
            size = os.environ.get(variable, "1")
            if size != "1":
                raise ValueError(
                    f"engine=local trains in one process, but {variable} is {size}; start one process"
                )
        return cls()

    @property
    def is_main(self) -> bool:
        """Whether this rank writes what is written once: the log, TensorBoard, pictures."""
        return self.rank == 0

    def agree(self, flag: bool) -> bool:
        """Whether any rank's flag is set; the same answer on every rank."""
        return flag


def default_device() -> torch.device:
    """The accelerator of this process, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
