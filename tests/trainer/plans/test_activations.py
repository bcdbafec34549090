"""Activations on fake tensors: the bytes that real ones take, and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.trainer import tiny
from trainer.engines.engine import Precision
from trainer.engines.local import LocalConfig
from trainer.engines.network import recompute_stages, run
from trainer.plans.activations import Followed, activations
from trainer.plans.device import Device

SHAPE, IMAGES = (1, 8, 8), 5  # no width of the network: no activation has the shape of a weight


def config(precision: Precision, recomputed: bool) -> LocalConfig:
    return LocalConfig(precision=precision, checkpoint_activations=recomputed)


def really_kept(chosen: LocalConfig, dropout: float) -> tuple[int, int]:
    """Bytes that a real forward pass saves, with what comes in and out; and of those, of casts of weights."""
    network = tiny.network(dropout)().train()
    if chosen.checkpoint_activations:
        recompute_stages(network)
    weights = {each.untyped_storage()._cdata for each in network.parameters()}
    shapes = {shape for each in network.parameters() for shape in (each.shape, each.shape[::-1])}
    x, t, _ = tiny.images(IMAGES)
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage, tensor.dtype == torch.bfloat16 and tensor.shape in shapes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run(network, chosen, x, t)
    for each in (x, t, out):
        saved.setdefault(each.untyped_storage()._cdata, (each.untyped_storage(), False))
    casts = sum(storage.nbytes() for storage, cast in saved.values() if cast)
    return sum(storage.nbytes() for storage, _ in saved.values()) - casts, casts


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("precision", Precision)
def test_what_is_kept_is_what_a_real_forward_pass_saves(precision, recomputed, dropout):
    chosen = config(precision, recomputed)
    planned = activations(tiny.network(dropout), chosen, SHAPE, IMAGES, device=Device.cpu)
    kept, casts = really_kept(chosen, dropout)
    # Of a norm in bf16 torch's fake tensors have the statistics in bf16; on a CPU they are fp32.
    assert planned.kept == pytest.approx(kept, rel=0.01 if precision is Precision.bf16 else 0)
    assert planned.casts >= casts
    assert (planned.casts > 0) is (precision is Precision.bf16)


def test_recomputing_keeps_less_and_more_images_keep_more():
    kept, recomputed = (
        activations(tiny.network(), config(Precision.fp32, each), SHAPE, IMAGES) for each in (False, True)
    )
    assert recomputed.kept < recomputed.peak < kept.kept < kept.peak
    double = activations(tiny.network(), config(Precision.fp32, False), SHAPE, 2 * IMAGES)
    assert double.kept == pytest.approx(2 * kept.kept, rel=0.01)


class Chain(nn.Module):
    """Convolution, norm, SiLU: each keeps what came into it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4)

    def forward(self, x, t):
        return nn.functional.silu(self.norm(self.convolution(x)))


N = 10 * 4 * 8 * 8  # elements after the convolution
INPUT = 10 * 8 * 8 * 4 + 10 * 8  # x and t
STATISTICS = 2 * 10 * 2  # the norm's means and deviations
OF_CHAIN = {
    (Precision.fp32, Device.cpu): INPUT + 4 * 3 * N + 4 * STATISTICS,
    (Precision.fp32, Device.accelerator): INPUT + 4 * 3 * N + 4 * STATISTICS,
    # The convolution's input is cast.
    (Precision.bf16, Device.cpu): INPUT + 10 * 8 * 8 * 2 + 2 * 3 * N + 2 * STATISTICS,
    # The norm reads and gives fp32; its input in bf16 is let go.
    (Precision.bf16, Device.accelerator): INPUT + 10 * 8 * 8 * 2 + 4 * 3 * N + 4 * STATISTICS,
}


@pytest.mark.parametrize(("precision", "device"), OF_CHAIN)
def test_what_a_short_chain_keeps_in_closed_form(precision, device):
    planned = activations(Chain, config(precision, False), SHAPE, 10, device=device)
    assert planned.kept == OF_CHAIN[precision, device]
    assert planned.casts == (2 * (4 + 4) if precision is Precision.bf16 else 0)


def test_memory_is_counted_once_until_it_is_let_go_and_weights_and_gradients_never():
    weight = torch.ones(100, requires_grad=True)
    with Followed([weight]) as followed:
        held = followed.activations
        doubled = weight * 2
        view = doubled[:50].view(5, 10)
        assert held.now == 400
        sine = doubled.sin()  # keeps what came into it
        del doubled, view
        assert (held.now, held.most) == (800, 800)
        sine.sum().backward()
        del sine
        assert held.now == 0
        assert weight.grad is not None
    assert held.most > 800
