"""Layouts: every element is in one place, where it really is, and collectives carry what they really do."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.plan_check import Carried, copies_of, simulated
from tests.trainer import tiny
from tests.trainer.ranks import on_ranks
from trainer.distributed import World
from trainer.engines import layout
from trainer.engines.engine import Engine, EngineConfig
from trainer.engines.fsdp import FsdpConfig
from trainer.engines.layout import Elements, Flat, Operation, Passing, Rows, Whole
from trainer.engines.zero import Zero1Config, Zero2Config, Zero3Config
from trainer.optimizers import OptimizerConfig
from trainer.plans.memory import copies
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


ENGINES = {
    "fsdp on 3": (FsdpConfig, {}, 3),
    "fsdp on 64": (FsdpConfig, {}, 64),
    "fsdp on 16, kept gathered": (FsdpConfig, {"reshard_after_forward": False}, 16),
    "zero1 on 3": (Zero1Config, {}, 3),
    "zero2 on 64": (Zero2Config, {}, 64),
    "zero3 on 3": (Zero3Config, {"keep_whole": 0}, 3),
    "zero3 on 64, some kept whole": (Zero3Config, {"keep_whole": 64}, 64),
}


def differences(_: World) -> list[tuple[str, int, str, object, object]]:
    """Where an engine in a simulated world, which itself calls the collectives, is not as its layout says."""
    found = []
    for name, (kind, values, ranks) in ENGINES.items():
        config = kind(accumulation=2, **values)
        # Stage 3 compares its ranks' plans, and a simulated group only ever agrees with the first.
        for rank in (0,) if kind is Zero3Config else (0, ranks - 1):
            with simulated(World(rank, ranks)):
                engine = config.build(tiny.network(), OptimizerConfig(), 0, World(rank, ranks))
                really = {"state": pieces_of(engine), "copies": copies_of(engine), **steps_of(engine)}
            expected = said_of(config, ranks, rank)
            for what in expected.keys() | really.keys():
                if expected.get(what, 0) != really.get(what, 0):
                    found.append((name, rank, what, expected.get(what), really.get(what)))
        assert not dist.is_initialized()
    return found


def said_of(config: EngineConfig, ranks: int, rank: int) -> dict[str, object]:
    planned, weights = config.layout(ranks), Weights.of(tiny.network()())
    # Stages 1 and 2 pad the whole network to what divides among the ranks, which the plan leaves out.
    more = planned.state.padded(weights.shapes) - weights.count if isinstance(planned.copies, Whole) else 0
    said: dict[str, object] = {
        "state": planned.state.owned(weights.shapes, rank),
        "copies": copies(planned, weights) + planned.computing_bytes * more,
    }
    carried = Counter[str]()
    for sent in traffic(planned, weights, config.accumulation):
        carried[sent.operation] += sent.times * sent.carried
    return said | carried


def pieces_of(engine: Engine) -> list[range]:
    return [range(shard.start, shard.stop) for shard in engine.shards().values()]


def steps_of(engine: Engine) -> dict[str, int]:
    """Bytes that the third step sends; the steps before it may still be finding their way."""
    for _ in range(3):
        with Carried(least=9) as counted:  # without the norm, one number in fp64
            for last in (False, True):
                engine.backward(engine(*tiny.images(2)[:2]).float().mean(), last)
            engine.step(0.0)
    return dict(counted.bytes)


def test_engines_on_simulated_ranks_hold_and_send_what_their_layouts_say():
    """In a process of its own, which DeepSpeed may change as it likes."""
    (found,) = on_ranks(1, differences)
    assert found == []


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
