"""Processes forked from one that has imported what is slow to import and nothing else: they start at once."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext

SLOW_TO_IMPORT = ["torch", "deepspeed", "hydra", "tensorboard", "webdataset", "configs.schema", "trainer.loop"]


def context() -> BaseContext:
    """Where such processes are made."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_TO_IMPORT)
    return context
