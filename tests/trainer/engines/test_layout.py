"""Layouts: every element is in one place, where it really is, and collectives carry what they really do."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from benchmarks.plan_check import Carried, simulated
from tests.trainer import tiny
from trainer.distributed import World
from trainer.engines import layout
from trainer.engines.layout import Elements, Flat, Operation, Passing, Rows, Whole
from trainer.plans.traffic import traffic
from trainer.plans.weights import Weights

SHAPES = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5)


@pytest.mark.parametrize("kind", [Rows, Elements, Flat])
@given(shapes=SHAPES, ways=st.integers(1, 9))
def test_every_element_is_in_one_place_and_the_first_place_is_the_fullest(kind, shapes, ways):
    cut = kind(ways)
    places = [cut.owned(shapes, place) for place in range(ways)]
    for number, shape in enumerate(shapes):
        held = itertools.chain.from_iterable(place[number] for place in places)
        assert list(held) == list(range(math.prod(shape))), "in the order of places, each once"
    counts = [cut.count(shapes, place) for place in range(ways)]
    assert max(counts) == counts[0]
    assert cut.padded(shapes) == ways * counts[0] >= sum(counts)


@given(shapes=SHAPES, ways=st.integers(1, 9))
def test_rows_and_elements_are_cut_as_torch_chunks(shapes, ways):
    for kind, flat in ((Rows, False), (Elements, True)):
        for number, shape in enumerate(shapes):
            numbers = torch.arange(math.prod(shape))
            chunks = (numbers if flat else numbers.view(shape)).chunk(ways)
            chunks = [chunk.flatten().tolist() for chunk in chunks] + [[]] * (ways - len(chunks))
            assert [list(kind(ways).owned(shapes, place)[number]) for place in range(ways)] == chunks


def test_a_flat_cut_takes_no_notice_of_where_parameters_end():
    """10 + 3 + 4 elements on 3 ranks, each a multiple of 2: 6, 6 and 5."""
    shapes = [(5, 2), (3,), (4,)]
    assert [Flat(3).owned(shapes, place) for place in range(3)] == [
        [range(6), range(0), range(0)],
        [range(6, 10), range(2), range(0)],
        [range(10, 10), range(2, 3), range(4)],
    ]


def test_whole_is_everything_everywhere():
    assert Whole().owned([(2, 3), (4,)], place=5) == [range(6), range(4)]


@pytest.mark.parametrize(("ranks", "reshard"), [(3, True), (512, True), (16, False)])
def test_fully_sharded_ranks_hold_and_exchange_what_the_layout_says(ranks, reshard):
    """Of a simulated world: FSDP2 itself cuts the network and calls the collectives, which then send nothing."""
    planned, weights = layout.rows(ranks, 1, 2, reshard), Weights.of(tiny.network()())
    for rank in (0, 1, ranks - 1):
        with simulated(World(rank, ranks)):
            network = fully_sharded(ranks, reshard)
            held = [parameter.to_local().numel() for parameter in network.parameters()]
            assert held == [len(piece) for piece in planned.state.owned(weights.shapes, rank)]
            carried = steps_of(network, accumulation=2)
    expected = {}
    for sent in traffic(planned, weights, accumulation=2):
        expected[sent.operation] = expected.get(sent.operation, 0) + sent.times * sent.carried
    assert carried == expected
    assert not dist.is_initialized()


def fully_sharded(ranks: int, reshard: bool) -> torch.nn.Module:
    mesh, network = init_device_mesh("cpu", (ranks,)), tiny.network()()
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for stage in network.stages():
        fully_shard(stage, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    return fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=False)


def steps_of(network: torch.nn.Module, accumulation: int) -> dict[str, int]:
    x, t, _ = tiny.images(2)
    with Carried(least=0) as counted:
        for _ in range(accumulation):
            with torch.autocast("cpu", torch.bfloat16):
                out = network(x, t)
            out.float().sum().backward()
    return dict(counted.bytes)


def test_a_ring_sends_all_but_a_ranks_own_part_and_an_all_reduce_does_so_twice():
    weights = Weights(((8, 4), (4,)), (((8, 4),),), ((4,),))
    n = 36
    (averaged,) = traffic(layout.whole(4, 2), weights, accumulation=3)
    assert (averaged.carried, averaged.times, averaged.sent) == (4 * n, 1, 2 * 3 * n)

    stage_1, stage_2 = (layout.flat(4, stage, 2, 4, False, 0) for stage in (1, 2))
    for planned, times in ((stage_1, 1), (stage_2, 3)):
        reduced, gathered = traffic(planned, weights, accumulation=3)
        assert (reduced.times, reduced.sent) == (times, times * 2 * 3 * n)
        assert (gathered.operation, gathered.times) == (Operation.all_gather.value, 1)
        assert gathered.sent == 3 * 2 * 10  # 36 elements are 10 a rank: a multiple of 2

    forward, backward, reduced = traffic(layout.elements(4, 2, 4, False, 0, Passing.stages), weights, 3)
    assert forward.sent == backward.sent == 3 * (3 * 2 * n // 4)
    assert reduced.sent == 3 * (3 * 4 * n // 4)
    assert len(traffic(layout.elements(4, 2, 4, False, 0, Passing.everything), weights, 3)) == 2

    forward, backward, reduced, averaged = traffic(layout.rows(4, 2, 2), weights, 3)
    assert forward.ranks == backward.ranks == reduced.ranks == averaged.ranks == 2
    assert (forward.sent, backward.sent) == (3 * 2 * n // 2, 3 * 2 * 32 // 2), "the rest stays gathered"
    assert (averaged.times, averaged.sent) == (1, 2 * (4 * n // 2) // 2)


def test_one_rank_alone_sends_nothing():
    layouts = [layout.whole(1, 4), layout.flat(1, 2, 4, 4, False, 0)]
    layouts.append(layout.elements(1, 4, 4, False, 0, Passing.stages))
    assert not any(planned.collectives for planned in layouts)
