"""A context in which asking a tensor for its value fails, as it would make the host wait for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "nonzero_static",
    "masked_select",
    "equal",
    "unique",
)
# On the CPU these read the memory without asking the dispatcher.
READING = ("item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__float__", "__int__", "__index__")


class HostWaited(AssertionError):
    """A value of a tensor was asked for."""


class Refuse(TorchDispatchMode):
    """Refuses every operation whose result, or whose result's shape, the host must know."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if name in WAITING or masks:
            raise HostWaited(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def no_sync() -> Iterator[None]:
    def refuse(*args: object, **kwargs: object) -> None:
        raise HostWaited("a tensor's memory was read")

    with ExitStack() as stack:
        for name in READING:
            stack.enter_context(mock.patch.object(Tensor, name, refuse))
        stack.enter_context(Refuse())
        yield
