"""The memory of a micro-batch's forward and backward pass, followed tensor by tensor without having any of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.engines.engine import EngineConfig
from trainer.engines.network import recompute_stages, run
from trainer.plans.device import Device


@dataclass(frozen=True)
class Activations:
    """Bytes. kept: from the forward pass for the backward one, with input and output.

    peak: the most at any moment of either, with what is only in passing. casts: the weights that autocast casts.
    """

    kept: int
    peak: int
    casts: int


def activations(
    build: Callable[[], nn.Module],
    config: EngineConfig,
    shape: tuple[int, int, int],
    images: int,
    classes: bool = False,
    device: Device = Device.accelerator,
) -> Activations:
    """What one micro-batch of so many images takes, with the squared error for a loss.

    The network runs on fake tensors: torch's own rules for shapes, types and what the backward pass needs, and no
    memory or arithmetic. It is not compiled, which keeps less. Weights and their gradients are not counted.
    """
    with FakeTensorMode():
        network = build().train()
        if device is Device.accelerator:
            normalise_in_float32(network)
        if config.checkpoint_activations:
            recompute_stages(network)
        with Followed(network.parameters()) as followed:
            x, times = torch.empty(images, *shape), torch.ones(images, dtype=torch.int64)
            out = run(network, config, x, times, *([torch.ones_like(times)] if classes else []))
            kept = followed.activations.now
            out.float().square().mean().backward()
    return Activations(kept, followed.activations.most, followed.casts.most)


def normalise_in_float32(network: nn.Module) -> None:
    """What autocast for an accelerator does and for a CPU does not, of what networks consist of."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, inputs: tuple(each.float() for each in inputs))


class Account:
    """Bytes that are held now, and the most that were."""

    now = most = 0

    def add(self, size: int) -> None:
        """May be less than 0."""
        self.now += size
        self.most = max(self.most, self.now)


class Followed(TorchDispatchMode):
    """Within it every memory that an operation makes is counted until it is let go.

    Memory that several tensors share is counted once. The weights' own is not, nor is a gradient once it has
    arrived; copies of weights in another type have an account of their own.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.activations, self.casts = Account(), Account()
        self._left_out = {key_of(weight): weight for weight in weights}
        self._counted: dict[int, tuple[Account, int]] = {}
        for weight in self._left_out.values():
            weight.register_post_accumulate_grad_hook(self._leave_out_gradient)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        cast = func is torch.ops.aten._to_copy.default and key_of(args[0]) in self._left_out
        for made in tree_leaves(out):
            if isinstance(made, Tensor):
                self._count(made, self.casts if cast else self.activations)
        return out

    def _count(self, made: Tensor, account: Account) -> None:
        storage, key = made.untyped_storage(), key_of(made)
        if key not in self._left_out and key not in self._counted:
            self._counted[key] = account, storage.nbytes()
            account.add(storage.nbytes())
            weakref.finalize(storage, self._let_go, key)

    def _let_go(self, key: int) -> None:
        if key in self._counted:
            account, size = self._counted.pop(key)
            account.add(-size)

    def _leave_out_gradient(self, weight: Tensor) -> None:
        assert weight.grad is not None
        self._let_go(key_of(weight.grad))
        self._left_out[key_of(weight.grad)] = weight.grad


def key_of(tensor: Tensor) -> int:
    """Of a tensor's memory, as long as it is held."""
    key: int = tensor.untyped_storage()._cdata
    return key
