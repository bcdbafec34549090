"""What every door has in common: a clear error and an exit status instead of a trace."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig


def door(main: Callable[[DictConfig], int]) -> Callable[[DictConfig], None]:
    """Ends the process with main's status; what a user can mend is told in one line, with status 1.

    QUASISTATIC_TRACE=1 shows the trace as well.
    """

    @functools.wraps(main)
    def opened(config: DictConfig) -> None:
        try:
            status = main(config)
        except (ValueError, OSError, FloatingPointError) as error:
            # Of a sweep's jobs the others go on, and Hydra raises what went wrong once they are through.
            if os.environ.get("QUASISTATIC_TRACE") or HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            print(told(error), file=sys.stderr)
            status = 1
        if status:
            sys.exit(status)

    return opened


def told(error: Exception) -> str:
    """What a person reads of it: in full from the first rank and from the one that has it, else in brief."""
    from trainer.distributed import FailedElsewhere

    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    if rank == "0":
        return f"error: {error}\n(QUASISTATIC_TRACE=1 shows where)"
    if isinstance(error, (FailedElsewhere, FloatingPointError)):
        return f"rank {rank}: stopped with the others"
    return f"rank {rank}: error: {error}"
