"""Plans: closed forms of memory and files, the real order of samples, and what cannot be planned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from torch import nn

from configs.runs import to_value
from configs.schema import register
from data_pipeline.order import Order, positions_of_rank
from tests.trainer import tiny
from trainer.checkpoints.manifest import Manifest, Saved
from trainer.checkpoints.tensor_file import Chunk
from trainer.distributed import World
from trainer.engines import layout
from trainer.engines.layout import Layout, Passing
from trainer.engines.local import LocalConfig
from trainer.plans.activations import Activations
from trainer.plans.memory import Memory, memories
from trainer.plans.plan import Cluster, batch_of, planned, read_by
from trainer.plans.reading import even, reading
from trainer.plans.saved import saved
from trainer.plans.table import readable, table
from trainer.plans.weights import Weights

# Stages of 12 and 20 elements, and 6 outside of them: in the network's order 6, 12, 20.
WEIGHTS = Weights(((3, 2), (4, 3), (20,)), (((4, 3),), ((20,),)), ((3, 2),))
HELD = Activations(kept=500, peak=1000, casts=70)
STATE = {"weights": 1, "moments": 2, "averages": 3}  # in turns of the weights' own bytes, with three averages

CASES = {
    "local": (layout.whole(1, 2), 38, {"gradients": 4 * 38, "passing": 70}),
    "ddp": (layout.whole(4, 2), 38, {"gradients": 4 * 38, "passing": 70}),
    # On 4 ranks: 1 of 3 rows of 2, 1 of 4 rows of 3, 5 of 20 rows of 1. Two stages in passing, and the rest.
    "fsdp": (layout.rows(4, 1, 2), 10, {"gradients": 40, "passing": 2 * 38, "buffers": 8 * 20}),
    "fsdp in 2 replicas": (layout.rows(8, 2, 2), 10, {"gradients": 40, "passing": 2 * 38, "buffers": 8 * 20}),
    "fsdp, kept gathered": (
        layout.rows(2, 1, 4, reshard=False),
        4 + 6 + 10,
        {"gradients": 80, "passing": 4 * 38, "buffers": 12 * 20},
    ),
    # 38 elements on 3 ranks, each an even number: 14, 14 and 10.
    "zero1": (layout.flat(3, 1, 2, 4, False, 30), 14, {"gradients": 4 * 38, "copies": 2 * 38, "buffers": 120}),
    "zero2": (layout.flat(3, 2, 2, 4, False, 99), 14, {"gradients": 56, "copies": 2 * 38, "buffers": 4 * 38}),
    # ceil(6 / 4) + ceil(12 / 4) + ceil(20 / 4)
    "zero3": (
        layout.elements(4, 2, 4, False, 5, Passing.everything),
        10,
        {"gradients": 40, "copies": 20, "passing": 2 * 38, "buffers": 20},
    ),
    # The parameter of 6 elements is whole beside its parts, padded to 4 x 2, and never in passing.
    "zero3, some kept whole": (
        layout.elements(4, 2, 4, False, 5, Passing.everything, keep_whole=6),
        10,
        {"gradients": 40, "copies": 20 + 2 * 8, "passing": 2 * 32, "buffers": 20},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_memory_by_kind_in_closed_form(name):
    chosen, owned, others = CASES[name]
    found = memories(chosen, WEIGHTS, HELD, averages=3)
    expected = Memory(**{kind: 4 * owned * turns for kind, turns in STATE.items()}, activations=1000, **others)
    assert found.device == expected
    assert found.host == Memory()
    assert found.device.total == 24 * owned + 1000 + sum(others.values())


def test_offloading_moves_the_state_and_the_gradients_to_the_host():
    on_device, offloaded = (
        memories(layout.flat(3, 2, 2, 4, offload, 30), WEIGHTS, HELD, averages=3) for offload in (False, True)
    )
    moved = {kind: getattr(on_device.device, kind) for kind in (*STATE, "gradients")}
    assert offloaded.host == Memory(**moved)
    assert offloaded.device == replace(on_device.device, **dict.fromkeys(moved, 0))


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_holds_everything_once(name):
    chosen, owned, _ = CASES[name]
    found = saved(chosen, WEIGHTS, averages=3)
    assert (found.files, found.total) == (chosen.ranks + 1, 4 * 6 * 38)
    replicas = {"ddp": 4, "fsdp in 2 replicas": 2}.get(name, 1)
    assert found.fullest == 4 * 6 * -(-owned // replicas)
    # Of 3 parameters, those that are cut: 3 of 3 rows, 4 of 4 and 20 of 20, in as many places as hold any of them.
    pieces = {"local": 3, "ddp": 3, "fsdp, kept gathered": 6, "zero1": 5, "zero2": 5}
    assert found.chunks == 6 * pieces.get(name, 3 + 4 + 4) + 1


def test_the_manifest_is_about_as_long_as_one_that_lists_as_many_chunks():
    saved_as = {
        f"parameter.{number}": Saved(
            (640, 10),
            tuple(
                Chunk(rank * 100, 100, f"rank-{rank:05}.safetensors", 10**8 + rank, ("0" * 32,))
                for rank in range(64)
            ),
        )
        for number in range(20)
    }
    files = {f"rank-{rank:05}.safetensors": {"bytes": 10**9, "header": "0" * 32} for rank in range(64)}
    manifest = Manifest(Path(), 0, 0, "", files, {"parameters": saved_as}, {})
    planned_as = saved(
        layout.elements(64, 2, 4, False, 5, Passing.everything), Weights(((640, 10),) * 20, (), ()), -2
    )
    assert planned_as.chunks == 20 * 64 + 1
    assert planned_as.manifest == pytest.approx(len(manifest.text()), rel=0.1)


def test_weights_are_grouped_by_stage():
    network = tiny.network()()
    found = Weights.of(network)
    assert found.count == sum(each.numel() for each in network.parameters())
    stages = [sum(each.numel() for each in stage.parameters()) for stage in network.stages()]
    rest = found.count - sum(stages)
    assert found.largest_stage == max(stages)
    assert found.passing == rest + max(map(sum, pairwise(stages)))


@dataclass
class Sharded(LocalConfig):
    """A stand-in: any engine that shards."""

    planned: Layout = field(default_factory=lambda: layout.rows(4, 1, 2))

    def check(self, network: nn.Module, ranks: int) -> None:
        """Trains anything."""

    def layout(self, ranks: int) -> Layout:
        return self.planned


def composed(*overrides: str):
    register()
    with initialize_config_module("configs", version_base="1.3"):
        return to_value(compose("plan", list(overrides)))


# A network of each kind, with what only some are told: classes, a schedule that is learned.
@pytest.mark.parametrize(
    "experiment",
    [
        "ddpm_digits",
        "ddpm_digits_classes",
        "dpm_swiss_roll",
        "dpm_heartbeat",
        "dpm_dead_leaves",
        "ncsn_digits",
    ],
)
def test_every_kind_of_network_is_planned(experiment):
    run = composed(f"experiment={experiment}", "data.batch=8", "engine.accumulation=2")
    run.engine = Sharded(run.engine.precision, 2)
    plan = planned(run, Cluster(ranks=4, ranks_per_node=2), even(50, 7) if run.data.pixels else [], steps=5)
    assert (plan.batch, plan.accumulation, plan.micro_batch, plan.note) == (8, 2, 1, "")
    assert plan.parameters == sum(each.numel() for each in run.build_network().parameters())
    assert 0 < plan.activations["recomputed"].kept <= plan.activations["kept"].kept
    assert plan.memory.device.activations == plan.activations["kept"].peak
    assert (plan.reading is None) is (not run.data.pixels)
    said = table(plan, "fsdp")
    assert f"{plan.parameters:,} parameters, engine=fsdp, 4 ranks" in said
    assert readable(plan.memory.device.total) in said


def test_recomputed_activations_are_planned_where_they_are_chosen():
    run = composed("experiment=ddpm_digits", "engine.checkpoint_activations=true")
    plan = planned(run, Cluster(), [100], steps=1)
    assert plan.memory.device.activations == plan.activations["recomputed"].peak < plan.activations["kept"].peak


def of(batch: int, accumulation: int = 1):
    return SimpleNamespace(data=SimpleNamespace(batch=batch), engine=SimpleNamespace(accumulation=accumulation))


def test_a_batch_too_small_for_the_ranks_is_planned_as_the_smallest_that_is_not_and_said_so():
    batch, note = batch_of(of(64, accumulation=2), ranks=512)
    assert batch == 1024
    assert "data.batch=64 has no image for each of 512 ranks in 2 micro-batches" in note
    assert "this is the plan of data.batch=1024" in note
    assert batch_of(of(64, accumulation=2), ranks=32) == (64, "")


def test_a_batch_that_the_ranks_do_not_divide_is_refused_as_training_would():
    with pytest.raises(ValueError, match=r"data\.batch must be a positive multiple of the number of ranks \(48\)"):
        batch_of(of(64), ranks=48)
    with pytest.raises(ValueError, match=r"data\.batch must divide into 4 ranks of 3 micro-batches each, got 64"):
        batch_of(of(64, accumulation=3), ranks=4)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["experiment=ddpm_digits"], "engine=local trains in one process, and 2 were started"),
        (
            ["experiment=ddpm_digits", "engine=fsdp", "engine.replicas=3"],
            r"engine\.replicas must divide .* 2, got 3",
        ),
        (["experiment=dpm_swiss_roll", "engine=fsdp"], "engine=fsdp has only a part of them"),
        (["experiment=dpm_swiss_roll", "engine=zero1", "engine.precision=bf16"], r"needs engine\.precision=fp32"),
        (["experiment=dpm_swiss_roll", "engine=zero3"], "engine=zero3 has no rank hold it"),
    ],
)
def test_what_the_engine_would_refuse_is_not_planned(chosen, message):
    run = composed(*chosen)
    for refused in (
        lambda: planned(run, Cluster(ranks=2), [100], steps=1),
        lambda: run.engine.build(run.build_network, run.optimizer, 0, World(0, 2)),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


def test_a_single_rank_of_fsdp_and_zero_in_fp32_learn_a_schedule():
    for ranks, engine in ((1, "fsdp"), (2, "zero2")):
        run = composed("experiment=dpm_swiss_roll", f"engine={engine}", "engine.precision=fp32")
        assert planned(run, Cluster(ranks=ranks), [], steps=1).cluster.ranks == ranks


@pytest.mark.parametrize("field", ["ranks", "ranks_per_node", "samples", "samples_per_shard", "steps"])
def test_numbers_below_one_are_refused_by_name(field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        composed(f"{field}=0")


def test_a_node_reads_what_its_ranks_read():
    """Against the samples of each rank, one by one, over an epoch's border and with a last shard that is short."""
    sizes, batch, ranks, a_node, steps, seed = even(97, 10), 24, 6, 4, 9, 3
    assert sizes == [10] * 9 + [7]
    found = reading(sizes, seed, batch, ranks, a_node, steps)
    order, each = Order(seed, 97), []
    for step in range(steps):
        positions = [p for rank in range(a_node) for p in positions_of_rank(step * batch, batch, rank, ranks)]
        each.append({int(order.samples(np.array([position]))[0]) // 10 for position in positions})
    assert found.samples == 16
    assert found.nodes == 2
    assert found.shards == 10
    assert found.shards_a_step == pytest.approx(np.mean([len(shards) for shards in each]))
    assert found.shards_in_steps == len(set.union(*each))


def test_a_node_reads_less_of_the_shards_in_lanes():
    sizes, common = even(6400, 50), {"seed": 3, "batch": 64, "ranks": 16, "ranks_per_node": 4, "steps": 100}
    everywhere, in_lanes = (reading(sizes, **common, window=4, lanes=lanes) for lanes in (1, 8))
    assert everywhere.shards_in_steps == 128
    assert in_lanes.shards_in_steps == 32  # a quarter: these lanes' borders are shards' borders
    assert in_lanes.samples == everywhere.samples == 16


def test_a_plan_reads_in_the_runs_own_lanes_and_windows():
    sizes, cluster = even(6400, 50), Cluster(ranks=16, ranks_per_node=4)
    run = composed("experiment=ddpm_digits", "engine=ddp", "data.batch=64", "data.window=2", "data.lanes=8")
    assert read_by(run, 64, cluster, sizes, steps=100).shards_in_steps == 32


def test_a_node_that_is_not_full_reads_for_the_ranks_there_are():
    found = reading([5, 5], seed=0, batch=6, ranks=3, ranks_per_node=8, steps=1)
    assert (found.nodes, found.samples) == (1, 6)


def test_bytes_are_readable():
    assert [readable(size) for size in (0, 1023, 1536, 5 * 2**30, 2**60)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5 GiB",
        "1024 PiB",
    ]
