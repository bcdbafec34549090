"""Runs a function on several ranks: real processes that talk over gloo."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from tests.forked import context
from trainer.distributed import World


def on_ranks(size: int, function: Callable[..., Any], *arguments: object, patience: float = 60.0) -> list[Any]:
    """function(world, *arguments) on each of `size` ranks; what they returned, in the order of ranks.

    The function is one of a module's, and what it takes and returns can be pickled; torch tensors are returned as
    numpy arrays. Raises AssertionError with the trace of every rank that raised, and ends the others.
    """
    processes, pipes = started(size, function, *arguments, patience=patience)
    try:
        answers = dict(collected(pipes))
    finally:
        for process in processes:
            process.terminate()
            process.join()
    failed = [f"rank {rank}:\n{answer}" for rank, (fine, answer) in sorted(answers.items()) if not fine]
    assert not failed, "\n".join(failed)
    return [answers[rank][1] for rank in range(size)]


def started(
    size: int, function: Callable[..., Any], *arguments: object, patience: float = 60.0
) -> tuple[list[BaseProcess], list[Connection]]:
    """The ranks, running, and the pipes by which each tells (whether it was fine, result or trace)."""
    forked, port, pipes, processes = context(), free_port(), [], []
    for rank in range(size):
        ours, theirs = forked.Pipe(duplex=False)
        settings = (World(rank, size, rank), port, patience)
        process = forked.Process(target=be_rank, args=(theirs, settings, function, arguments), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    return processes, pipes


def collected(pipes: list[Connection]):
    """(rank, (whether it was fine, result or trace)) of each; once one failed, the others get a few seconds."""
    waiting, patience = dict(zip(pipes, range(len(pipes)), strict=True)), None
    while waiting and (ready := wait(list(waiting), patience)):
        for pipe in ready:
            rank = waiting.pop(pipe)
            try:
                answer = pipe.recv()
            except EOFError:
                answer = False, "the process died"
            patience = patience if answer[0] else 5.0
            yield rank, answer


def be_rank(pipe: Connection, settings: tuple[World, int, float], function: Callable[..., Any], arguments) -> None:
    """What each process runs."""
    import torch

    torch.set_num_threads(1)
    world, port, patience = settings
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(world.rank)}
    os.environ |= {**place, "WORLD_SIZE": str(world.size), "LOCAL_RANK": str(world.local_rank)}
    try:
        with world.joined(patience):
            answer = True, plain(function(world, *arguments))
    except BaseException:
        answer = False, traceback.format_exc()
    pipe.send(answer)
    sys.exit(not answer[0])


def plain(value: Any) -> Any:
    """The same with arrays for tensors: a tensor's memory would go with its process."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().float().numpy()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(each) for each in value)
    return value


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
