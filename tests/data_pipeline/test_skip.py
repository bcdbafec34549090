"""Undecodable samples: raised at their batch with shard, key and span, or skipped by a rule all ranks share."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import pytest
import torch

from data_pipeline.config import DataConfig, OnError
from data_pipeline.decode import UndecodableImage
from data_pipeline.order import Order, epoch_order
from data_pipeline.stream import DataStream

SEED = 6
SIZE = 20
# Places 11 and 12 of the first epoch.
BAD = epoch_order(SEED, 0, SIZE)[[11, 12]].tolist()


@pytest.fixture
def damaged(pack: Callable[..., Path], number: Callable[..., dict[str, bytes]]) -> DataConfig:
    samples = [number(i) for i in range(SIZE)]
    samples[BAD[0]]["png"] = samples[BAD[0]]["png"][:40]
    samples[BAD[1]] = {"__key__": samples[BAD[1]]["__key__"], "pyd": pickle.dumps(1), "cls": b"1"}
    return DataConfig(str(pack(samples)), resolution=4, channels=1, batch=4, labels=True, on_error=OnError.skip)


def expected_order(epochs: int) -> list[int]:
    expected = []
    for epoch in range(epochs):
        for place, first in enumerate(epoch_order(SEED, epoch, SIZE).tolist()):
            chosen = chain((first,), Order(SEED, [SIZE]).following(epoch * SIZE + place))
            expected.append(next(sample for sample in chosen if sample not in BAD))
    return expected


@pytest.mark.parametrize("workers", [0, 3])
def test_an_undecodable_image_is_raised_where_its_batch_is_due(damaged: DataConfig, workers: int) -> None:
    stream = DataStream(replace(damaged, on_error=OnError["raise"], workers=workers), SEED)
    message = rf"shard .*part-000\d\.tar, key '{BAD[0]:06d}', png at bytes \d+:\d+: OpenCV cannot decode"
    message += r".*\(data\.on_error=skip goes on without it\)"
    with stream.open(0) as batches:
        assert [batch.cursor for batch in islice(batches, 2)] == [4, 8]
        for _ in range(2):  # asked again, it does not go on as if nothing had happened
            with pytest.raises(UndecodableImage, match=message):
                next(batches)


def test_a_sample_without_an_image_is_undecodable(damaged: DataConfig) -> None:
    stream = DataStream(replace(damaged, on_error=OnError["raise"]), SEED)
    expected = rf"key '{BAD[1]:06d}': expected one image \(png, jpg, jpeg, webp\), got members cls, pyd"
    with stream.open(12) as batches, pytest.raises(UndecodableImage, match=expected):
        next(batches)


def test_the_byte_span_is_that_of_the_image(damaged: DataConfig) -> None:
    stream = DataStream(replace(damaged, on_error=OnError["raise"]), SEED)
    with stream.open(8) as batches, pytest.raises(UndecodableImage) as caught:
        next(batches)
    match = re.match(r"shard (.*), key '.*', png at bytes (\d+):(\d+): ", str(caught.value))
    assert match is not None
    data = Path(match[1]).read_bytes()[int(match[2]) : int(match[3])]
    assert len(data) == 40
    assert data.startswith(b"\x89PNG")


@pytest.mark.parametrize("world", [1, 2, 4])
def test_skipping_keeps_global_batches_aligned(damaged: DataConfig, world: int) -> None:
    stream = DataStream(damaged, SEED)
    ranks = []
    for rank in range(world):
        with stream.open(0, rank, world) as batches:
            ranks.append(list(islice(batches, 4 * SIZE // 4)))
    for k, parts in enumerate(zip(*ranks, strict=True)):
        images, labels = torch.cat([p.x for p in parts]), torch.cat([p.condition for p in parts])
        expected = expected_order(4)[4 * k : 4 * k + 4]
        assert images[:, 0, 0, 0].tolist() == expected
        assert labels.tolist() == [i % 10 for i in expected]
        assert torch.cat([p.index for p in parts]).tolist() == list(range(4 * k, 4 * k + 4))
        assert {p.cursor for p in parts} == {4 * k + 4}


@pytest.mark.parametrize("world", [1, 2, 4])
def test_skipping_keeps_global_batches_aligned_where_ranks_read_lanes(damaged: DataConfig, world: int) -> None:
    stream, order = DataStream(replace(damaged, window=1, lanes=2), SEED), Order(SEED, [7, 7, 6], 1, 2)
    for rank in range(world):
        with stream.open(0, rank, world) as batches:
            for batch in islice(batches, 2 * SIZE // 4):
                chosen = zip(batch.index.tolist(), order.samples(batch.index.numpy()).tolist(), strict=True)
                expected = [next(i for i in (first, *order.following(p)) if i not in BAD) for p, first in chosen]
                assert batch.x[:, 0, 0, 0].tolist() == expected


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_skips_are_counted_where_they_are_due_and_logged_once(
    damaged: DataConfig, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    stream = DataStream(replace(damaged, workers=workers), SEED)
    with caplog.at_level(logging.WARNING, "data_pipeline"), stream.open(0) as batches:
        counted = [(next(batches).cursor, batches.skipped)[1] for _ in range(5)]
        assert counted == [0, 0, 1, 2, 2]  # however many samples a place passes over
        next(islice(batches, 10, None))
    assert batches.skipped > 2
    logged = sorted(record.getMessage() for record in caplog.records)
    assert len(logged) == 2
    for bad in BAD:
        assert any(re.match(rf"skipped shard .*part-000\d\.tar, key '{bad:06d}'", line) for line in logged)


def test_a_bad_first_sample_is_skipped_too(
    pack: Callable[..., Path], number: Callable[..., dict[str, bytes]]
) -> None:
    samples = [number(i) for i in range(5)]
    first = int(epoch_order(0, 0, 5)[0])
    samples[first]["png"] = b""
    config = DataConfig(str(pack(samples)), resolution=4, channels=1, batch=5, on_error=OnError.skip)
    with DataStream(config, 0).open(0) as batches:
        assert first not in next(batches).x[:, 0, 0, 0]
        assert batches.skipped == 1
    with pytest.raises(UndecodableImage, match="the image has no bytes"):
        DataStream(replace(config, on_error=OnError["raise"]), 0)


def test_nothing_decodable_at_all_is_an_error(pack: Callable[..., Path]) -> None:
    shards = pack([{"__key__": f"{i}", "png": b"x"} for i in range(5)])
    config = DataConfig(str(shards), resolution=4, channels=1, on_error=OnError.skip)
    with pytest.raises(ValueError, match=r"no sample can be decoded, as shard .* key '\d'"):
        DataStream(config, 0)


def test_size_is_a_setting_and_never_skipped(damaged: DataConfig) -> None:
    with pytest.raises(ValueError, match=r"smaller than data\.resolution=8"):
        DataStream(replace(damaged, resolution=8), SEED)


def test_a_member_over_the_byte_limit_is_not_read(damaged: DataConfig) -> None:
    from data_pipeline.dataset import Dataset
    from data_pipeline.decode import Limits
    from data_pipeline.shards import ShardSet

    dataset = Dataset(ShardSet.open(damaged.shards), damaged, Limits(max_bytes=50))
    dataset._reader.read = None  # type: ignore[assignment, method-assign]
    with pytest.raises(UndecodableImage, match=r"key '\d+', png at bytes .* and at most 50 are decoded"):
        dataset.image(int(epoch_order(SEED, 0, SIZE)[0]), 0)
