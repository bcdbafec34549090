"""The processes of a run, and what they say to each other beside the engine's own traffic."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# What torchrun says, and what srun says of the same.
PLACES = {
    "rank": ("RANK", "SLURM_PROCID"),
    "size": ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"),
    "local_rank": ("LOCAL_RANK", "SLURM_LOCALID"),
}


class FailedElsewhere(ValueError):
    """Another rank cannot go on, so neither can this one."""


@dataclass(frozen=True)
class World:
    """This process among all those of the run. Every rank calls every method that talks, or none does."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> World:
        """The world that torchrun or srun describes. Raises ValueError where that is no world."""
        world = cls(**{name: number_of(variables) for name, variables in PLACES.items()})
        if not 0 <= world.rank < world.size:
            raise ValueError(
                f"rank {world.rank} of {world.size} is no rank: {PLACES['rank']} and {PLACES['size']}"
            )
        devices = torch.cuda.device_count() if torch.cuda.is_available() else None
        if devices is not None and not 0 <= world.local_rank < devices:
            raise ValueError(
                f"local rank {world.local_rank} has no accelerator: this process sees {devices}; start at most "
                f"{devices} on a machine, or let each see all of them (the first set of {PLACES['local_rank']} "
                "numbers them)"
            )
        if world.size > 1:
            for variable in ("MASTER_ADDR", "MASTER_PORT"):
                if variable not in os.environ:
                    raise ValueError(
                        f"{world.size} processes were started, but {variable}, where they meet, is not set; "
                        "start them with torchrun"
                    )
        return world

    @property
    def device(self) -> torch.device:
        """The accelerator of this process, or the CPU where there is none."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    @property
    def backend(self) -> str:
        """What carries the ranks' traffic: of the accelerator, and of plain values."""
        return "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"

    @property
    def is_main(self) -> bool:
        """Whether this rank writes what is written once: the log, TensorBoard, pictures."""
        return self.rank == 0

    @contextmanager
    def joined(self, patience: float) -> Iterator[None]:
        """Within it the ranks can talk. One that waits for another longer than `patience` seconds fails.

        Raises OSError where a rank does not come to the meeting place in that time.
        """
        if self.size == 1:
            yield
            return
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        try:
            with meeting(patience):
                dist.init_process_group(
                    self.backend, rank=self.rank, world_size=self.size, timeout=timedelta(seconds=patience)
                )
        except dist.DistError as error:
            raise OSError(
                f"rank {self.rank} of {self.size} could not meet the others at {where} within {patience:g} s "
                f"(run.patience): {error}"
            ) from error
        try:
            yield
        except BaseException as error:
            # To part in order would mean to wait, for up to the patience, for ranks that wait for this one.
            atexit.register(exit_at_once)
            if is_broken_exchange(error) and not isinstance(error, LostRank):
                raise LostRank(f"rank {self.rank} of {self.size} lost the others: {error}") from error
            raise
        dist.destroy_process_group()

    def board(self) -> dist.Store | None:
        """Where ranks leave notes for each other without waiting, over a connection that any thread may use."""
        if self.size == 1:
            return None
        store = dist.distributed_c10d._get_default_store().clone()
        store.set_timeout(timedelta(seconds=5))
        return store

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def everyones(self, value: Any) -> list[Any]:
        """What each rank has, in the order of ranks, on every rank. For few and small plain values."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def in_order(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor, all of one shape, one after the other along the first axis, on every rank."""
        if self.size == 1:
            return tensor
        joined = tensor.new_empty(self.size * len(tensor), *tensor.shape[1:])
        dist.all_gather_into_tensor(joined, tensor.contiguous())
        return joined

    @contextmanager
    def together(self) -> Iterator[None]:
        """What any rank raises within it is raised on every rank: its own where it happened.

        For work that each rank does by itself, such as opening files: within it no rank waits for another.
        """
        own: Exception | None = None
        try:
            yield
        except (ValueError, OSError) as error:
            own = error
        told = self.everyones(None if own is None else str(own))
        if own is not None:
            raise own
        for rank, message in enumerate(told):
            if message is not None:
                raise FailedElsewhere(f"rank {rank}: {message}")


class Agreement:
    """Whether any rank wants to leave: the same answer on every rank, one step late.

    Each call starts the exchange of this step's flags and answers with that of the step before, which has long
    arrived: no rank waits for the slowest one. All ranks leave at the same call, and with it the exchange that is
    still under way, in which a rank that left early would trouble the others.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._sent: dist.Work | None = None

    def __call__(self, flag: bool) -> bool:
        if self.world.size == 1:
            return flag
        agreed = self._answer()
        self._flag.fill_(flag)
        self._sent = dist.all_reduce(self._flag, dist.ReduceOp.MAX, async_op=True)
        return agreed

    def _answer(self) -> bool:
        if self._sent is None:
            return False
        self._sent.wait()
        self._sent = None
        return bool(self._flag)

    def __enter__(self) -> Agreement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # after one, the others may never send theirs
            self._answer()


class LostRank(OSError):
    """An exchange with the other ranks broke off or took longer than the patience."""


def is_broken_exchange(error: BaseException | None) -> bool:
    """Whether it says that an exchange failed: NCCL and the store have a type for that, gloo only its words."""
    told = isinstance(error, RuntimeError) and "/gloo/" in str(error)
    return told or isinstance(error, (dist.DistError, LostRank))


@contextmanager
def meeting(patience: float) -> Iterator[None]:
    """Around what connects ranks. Where it takes three times the patience it ends the process, with status 1.

    gloo keeps to its time-out in every exchange, but not while it connects to a rank that has just died.
    """
    timer = threading.Timer(3 * patience, leave_meeting, (3 * patience,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def leave_meeting(seconds: float) -> None:
    """Says so and ends the process: the thread that connects cannot be reached."""
    print(f"error: the ranks did not connect within {seconds:g} s; one may have died then", file=sys.stderr)
    exit_at_once()


def exit_at_once() -> None:
    """Ends the process with status 1, without the destructors of torch, which wait for the other ranks."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def number_of(variables: tuple[str, ...]) -> int:
    """The first of these environment variables that is set, as a number; without any, that of a single process."""
    for variable in variables:
        if variable in os.environ:
            try:
                return int(os.environ[variable])
            except ValueError:
                raise ValueError(f"{variable} must be a whole number, got {os.environ[variable]!r}") from None
    return 1 if "WORLD_SIZE" in variables else 0


def default_device() -> torch.device:
    """The accelerator of a single process, or the CPU where there is none."""
    return World().device
