"""python -m tests.launch.faulty …: launch.train with one fault planted.

FAULT=KIND:RANK:STEP: what happens on that rank in that step, or of `save` in its save of that number.
FAULT=poison:INDEX,INDEX,…: the losses of these samples are not finite.
"""

from __future__ import annotations

import os
import signal
import time

import torch

from launch.train import main
from trainer import loop
from trainer.checkpoints import storage

KIND, _, DETAILS = os.environ.get("FAULT", "none").partition(":")
RANK = int(os.environ.get("RANK", "0"))
plain_step, steps = loop.train_step, []
plain_write, saves = storage.write, []


def fault() -> None:
    """What is planted in this rank's next step."""
    steps.append(None)
    if KIND in ("none", "poison", "save") or f"{RANK}:{len(steps)}" != DETAILS:
        return
    if KIND == "raise":
        raise OSError(f"the disk of rank {RANK} is full")
    if KIND == "bug":
        raise RuntimeError(f"a bug on rank {RANK}")
    if KIND == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if KIND == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if KIND == "sleep":
        time.sleep(12)


def faulty_step(engine, diffusion, objective, batch, lr, seed):
    fault()
    if KIND == "poison":
        objective = poisoned(objective, torch.tensor([int(index) for index in DETAILS.split(",")]))
    return plain_step(engine, diffusion, objective, batch, lr, seed)


def faulty_write(path, shards):
    saves.append(None)
    if KIND == "save" and f"{RANK}:{len(saves)}" == DETAILS:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain_write(path, shards)


def poisoned(objective, indices):
    """The same objective with losses and gradients of inf of these samples."""

    def call(diffusion, x_0, noise, condition=None):
        terms = objective(diffusion, x_0, noise, condition)
        factor = torch.where(torch.isin(noise.index, indices.to(noise.index.device)), torch.inf, 1.0)
        return type(terms)(terms.loss * factor, terms.t)

    return call


loop.train_step = faulty_step
storage.write = faulty_write

if __name__ == "__main__":
    main()
