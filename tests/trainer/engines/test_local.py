"""LocalEngine: a plain torch loop, however it is accumulated, recomputed, lent, saved and loaded."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from models.networks.layers import ResidualBlock
from models.objectives import SimpleLoss
from tests.trainer import tiny
from trainer.engines.engine import Precision
from trainer.engines.local import LocalConfig
from trainer.loop import train_step
from trainer.optimizers import OptimizerConfig
from trainer.shard import Shards, copy_shards

RATES = [0.0, 1e-4, 5e-4, 1e-3, 1e-3, 3e-4]


@pytest.mark.parametrize("clip_norm", [0.05, 1e6, 0.0], ids=["clipped", "not reached", "off"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_those_of_a_plain_loop(clip_norm, weight_decay):
    """With a large epsilon: else Adam forgets the gradient's scale, clipping with it, and magnifies rounding."""
    optimizer = OptimizerConfig(betas=[0.8, 0.99], epsilon=1e-3, weight_decay=weight_decay)
    engine = tiny.engine(optimizer=optimizer, clip_norm=clip_norm)
    plain = tiny.network()()
    plain.load_state_dict(tiny.weights(engine))
    adam = torch.optim.AdamW(
        plain.parameters(), betas=(0.8, 0.99), eps=1e-3, weight_decay=weight_decay, fused=False, foreach=False
    )
    for number, rate in enumerate(RATES):
        x, t, target = tiny.images(seed=number)
        found = tiny.step(engine, number, rate)
        adam.zero_grad()
        (plain(x, t) - target).square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), clip_norm or float("inf"))
        adam.param_groups[0]["lr"] = rate
        adam.step()
        assert float(found) == pytest.approx(float(norm), rel=1e-6), "the norm is told as it was before clipping"
        assert clip_norm == 0 or (float(norm) > clip_norm) is (clip_norm < 1)
    for name, weight in plain.state_dict().items():
        assert float((tiny.weights(engine)[name] - weight).abs().max()) <= 1e-6, name


def test_accumulation_does_not_change_a_step():
    """The gradients of key biases are 0 but for rounding, which Adam would blow up: epsilon keeps it small."""
    trained = {}
    for accumulation in (1, 2, 4):
        engine = tiny.engine(optimizer=OptimizerConfig(epsilon=1e-3), accumulation=accumulation)
        for number in range(3):
            report = train_step(engine, tiny.diffusion(engine), SimpleLoss(), tiny.batch(number), 1e-2, seed=1)
        trained[accumulation] = (tiny.weights(engine), report)
    weights, report = trained[1]
    for accumulation in (2, 4):
        others, other_report = trained[accumulation]
        assert torch.equal(other_report.terms.t, report.terms.t)
        assert torch.allclose(other_report.terms.loss, report.terms.loss, rtol=1e-4)
        assert torch.allclose(other_report.gradient_norm, report.gradient_norm, rtol=1e-4)
        for name, weight in weights.items():
            assert float((others[name] - weight).abs().max()) <= 1e-6, name


def test_recomputed_activations_give_identical_gradients():
    gradients, forwards = {}, {}
    for recompute in (False, True):
        engine = tiny.engine(tiny.network(dropout=0.3), checkpoint_activations=recompute)
        count = counted(engine)
        x, t, target = tiny.images()
        torch.manual_seed(0)  # of dropout
        engine.backward((engine(x, t) - target).square().mean(), last=True)
        gradients[recompute] = {name: parameter.grad for name, parameter in engine.parameters.items()}
        forwards[recompute] = count()
    assert tiny.same(gradients[True], gradients[False])
    assert forwards[True] == 2 * forwards[False], "nothing was recomputed"


def counted(engine):
    """Counts how often the engine's residual blocks run forward."""
    calls = []
    for module in engine.network.modules():
        if isinstance(module, ResidualBlock):
            module.register_forward_pre_hook(lambda *_: calls.append(1))
    return lambda: len(calls)


def test_bf16_is_close_to_fp32_and_keeps_its_weights_in_fp32():
    full, half = tiny.engine(), tiny.engine(precision=Precision.bf16)
    x, t, _ = tiny.images()
    with torch.no_grad():
        exact, rounded = full(x, t), half(x, t).float()
    assert not torch.equal(rounded, exact)
    assert float((rounded - exact).norm() / exact.norm()) < 0.02
    for number in range(3):
        norms = tiny.step(full, number), tiny.step(half, number)
        assert float(norms[1]) == pytest.approx(float(norms[0]), rel=0.03)
    kinds = half.state()
    assert all(shard.tensor.dtype == torch.float32 for named in kinds.values() for shard in named.values())


def lent_to(engine) -> Shards:
    return {name: shard.like(shard.tensor + 0.1) for name, shard in engine.shards().items()}


def copied(shards: Shards) -> dict[str, torch.Tensor]:
    return {name: shard.tensor.clone() for name, shard in shards.items()}


def test_within_lend_the_network_runs_on_the_lent_weights_without_dropout():
    engine = tiny.engine(tiny.network(dropout=0.5))
    others = lent_to(engine)
    x, t, _ = tiny.images()
    wholes = {name: shard.whole for name, shard in others.items()}
    expected = functional_call(tiny.network()().eval(), wholes, (x, t))
    with engine.lend(others), torch.no_grad():
        assert torch.equal(engine(x, t), expected)
        assert torch.equal(engine(x, t), expected)


def test_after_lend_training_goes_on_as_if_nothing_had_happened():
    undisturbed, disturbed = tiny.engine(), tiny.engine()
    for number in range(4):
        tiny.step(undisturbed, number)
        others = lent_to(disturbed)
        kept = copied(others)
        with disturbed.lend(others), torch.no_grad():
            disturbed(*tiny.images()[:2])
        tiny.step(disturbed, number)
        assert tiny.same(copied(others), kept), "the lent weights were trained"
    assert tiny.same(tiny.weights(undisturbed), tiny.weights(disturbed))
    assert disturbed.network.training


def test_an_exception_within_lend_restores_the_weights_and_dropout():
    engine = tiny.engine(tiny.network(dropout=0.5))
    own = copied(engine.shards())
    with pytest.raises(RuntimeError, match="the probe failed"), engine.lend(lent_to(engine)):
        raise RuntimeError("the probe failed")
    assert tiny.same(copied(engine.shards()), own)
    assert engine.network.training


def test_weights_that_lack_a_name_are_not_lent_at_all():
    engine = tiny.engine()
    own = copied(engine.shards())
    others = dict(lent_to(engine))
    others.popitem()
    with pytest.raises(AssertionError), engine.lend(others):
        pass
    assert tiny.same(copied(engine.shards()), own)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_what_was_saved_goes_on_bit_for_bit_in_another_engine(steps):
    saved, other = tiny.engine(seed=0), tiny.engine(seed=1)
    for number in range(steps):
        tiny.step(saved, number)
        tiny.step(other, number + 50)
    for kind, shards in saved.state().items():
        copy_shards(shards, other.state()[kind])
    other.refresh()
    for number in range(steps, steps + 3):
        assert torch.equal(tiny.step(saved, number), tiny.step(other, number))
    for kind, shards in saved.state().items():
        assert tiny.same(copied(shards), copied(other.state()[kind])), kind


def test_the_state_of_an_engine_that_has_not_stepped_is_adams_start():
    state = tiny.engine().state()
    for kind in ("exp_avg", "exp_avg_sq"):
        assert all(torch.count_nonzero(shard.tensor) == 0 for shard in state[kind].values())
    assert float(state["steps"]["optimizer"].whole) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_moves_nothing_and_the_next_step_is_as_if_it_had_not_been(bad):
    undisturbed, disturbed = tiny.engine(), tiny.engine()
    for number in range(3):
        tiny.step(undisturbed, number)
        tiny.step(disturbed, number)
        before = {kind: copied(shards) for kind, shards in disturbed.state().items()}
        x, t, _ = tiny.images()
        disturbed.backward((disturbed(x, t) * bad).mean(), last=True)
        assert not torch.isfinite(disturbed.step(1e-3))
        assert all(tiny.same(copied(disturbed.state()[kind]), held) for kind, held in before.items())
    assert tiny.same(tiny.weights(undisturbed), tiny.weights(disturbed))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accumulation": 0}, r"engine\.accumulation must be at least 1, got 0"),
        ({"clip_norm": -1.0}, r"engine\.clip_norm must be at least 0 .*got -1\.0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        LocalConfig(**values)
