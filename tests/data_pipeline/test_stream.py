"""The stream: exact order for any world, workers and cursor; prefetching that neither hangs nor leaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from data_pipeline.config import DataConfig
from data_pipeline.dataset import Encoded
from data_pipeline.decoders import Decoder
from data_pipeline.order import Order, augmentation_words, epoch_order
from data_pipeline.stream import Batch, DataStream
from data_pipeline.transforms import Crop, scaled_crop

Config = Callable[..., DataConfig]


@pytest.fixture
def config(numbered: Path) -> DataConfig:
    return DataConfig(str(numbered), resolution=4, channels=1, batch=12, labels=True)


def take(stream: DataStream, count: int, cursor: int = 0, rank: int = 0, world: int = 1) -> list[Batch]:
    with stream.open(cursor, rank, world) as batches:
        return list(islice(batches, count))


def tensors(batches: list[Batch]) -> list[Tensor]:
    """x, condition and index of all batches together."""
    conditions = [batch.condition for batch in batches if batch.condition is not None]
    return [
        torch.cat([batch.x for batch in batches]),
        torch.cat(conditions),
        torch.cat([b.index for b in batches]),
    ]


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def data_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("data")]


def test_batches_hold_what_the_order_says(config: DataConfig) -> None:
    x, condition, index = tensors(take(DataStream(config, seed=3), 5))
    expected = np.concatenate([epoch_order(3, epoch, 30) for epoch in range(2)])
    assert x[:, 0, 0, 0].tolist() == expected.tolist()
    assert x[:, 0, 3, 3].tolist() == (255 - expected).tolist()
    assert condition.tolist() == (expected % 10).tolist()
    assert index.tolist() == list(range(60))
    assert (x.dtype, condition.dtype, index.dtype) == (torch.uint8, torch.int64, torch.int64)


def test_state_travels_with_the_batch(config: DataConfig) -> None:
    batches = take(DataStream(config, seed=3), 3, cursor=7, rank=1, world=2)
    assert [(batch.cursor, batch.global_size, len(batch.x)) for batch in batches] == [
        (19, 12, 6),
        (31, 12, 6),
        (43, 12, 6),
    ]
    assert batches[1].index.tolist() == list(range(25, 31))


@pytest.mark.parametrize("world", [2, 3, 4, 6, 12])
def test_a_global_batch_is_the_same_for_any_world(config: DataConfig, world: int) -> None:
    stream = DataStream(replace(config, flip=True), seed=1)
    whole = take(stream, 4)
    ranks = [take(stream, 4, rank=rank, world=world) for rank in range(world)]
    for k in range(4):
        assert_equal(tensors([batches[k] for batches in ranks]), tensors([whole[k]]))


@pytest.mark.parametrize("lanes", [2, 3, 5])
def test_ranks_that_read_lanes_share_the_same_global_batch(config: DataConfig, lanes: int) -> None:
    stream = DataStream(replace(config, flip=True, window=2, lanes=lanes), seed=1)
    order = Order(1, [7, 7, 7, 7, 2], window=2, lanes=lanes)
    for world in (1, 2, 6):
        ranks = [take(stream, 4, rank=rank, world=world) for rank in range(world)]
        for k in range(4):
            x, _, index = tensors([batches[k] for batches in ranks])
            assert index.tolist() == order.positions(12 * k, 12, 0, 1).tolist()
            assert x.amin((1, 2, 3)).tolist() == [min(i, 255 - i) for i in order.samples(index.numpy()).tolist()]
            bits = torch.from_numpy((augmentation_words(1, index.numpy())[:, 0] >> np.uint64(63)).astype(bool))
            assert torch.equal(x[:, 0, 0, 0] > 127, bits)  # the right half is the light one


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 20])
def test_batches_are_the_same_for_any_number_of_workers(config: DataConfig, workers: int) -> None:
    config = replace(config, flip=True)
    alone = take(DataStream(replace(config, workers=0), seed=1), 8)
    together = take(DataStream(replace(config, workers=workers, prefetch=3), seed=1), 8)
    assert_equal(tensors(together), tensors(alone))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cursor=st.integers(0, 100), world=st.sampled_from([1, 2, 3]), workers=st.integers(0, 2))
def test_any_cursor_resumes_exactly(config: DataConfig, cursor: int, world: int, workers: int) -> None:
    stream = DataStream(replace(config, flip=True, workers=workers), seed=8)
    uninterrupted = tensors(take(stream, 12))
    for rank in range(world):
        share = slice(cursor + rank * 12 // world, cursor + (rank + 1) * 12 // world)
        resumed = take(stream, 1, cursor, rank, world)
        assert_equal(tensors(resumed), [tensor[share] for tensor in uninterrupted])


def test_a_batch_may_be_larger_than_the_data_set(config: DataConfig) -> None:
    stream = DataStream(replace(config, batch=100), seed=2)
    counts = torch.bincount(take(stream, 1)[0].x[:90, 0, 0, 0].long(), minlength=30)
    assert counts.tolist() == [3] * 30


def test_flips_are_a_function_of_the_position(config: DataConfig) -> None:
    plain = tensors(take(DataStream(config, seed=4), 10))[0]
    flipped = tensors(take(DataStream(replace(config, flip=True), seed=4), 10))[0]
    bits = torch.from_numpy((augmentation_words(4, np.arange(120))[:, 0] >> np.uint64(63)).astype(bool))
    assert 30 < bits.sum() < 90
    assert torch.equal(flipped, torch.where(bits[:, None, None, None], plain.flip(3), plain))


def test_crops_are_a_function_of_the_position(pack: Callable[..., Path], encode: Callable[..., bytes]) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    shards = str(pack([{"__key__": "0", "png": encode(image)}]))
    random = DataConfig(shards, resolution=4, channels=1, batch=60, crop=Crop.random)
    corners = take(DataStream(random, seed=0), 1)[0].x[:, 0, 0, 0]
    assert len(set(corners.tolist())) > 10
    assert torch.equal(corners[40:], take(DataStream(random, seed=0), 1, cursor=40)[0].x[:20, 0, 0, 0])
    center = DataConfig(shards, resolution=4, channels=1, batch=2, crop=Crop.center)
    assert take(DataStream(center, seed=0), 1)[0].x[1, 0].tolist() == image[1:5, 2:6].tolist()


def test_scaled_crops_are_a_function_of_the_position(
    pack: Callable[..., Path], encode: Callable[..., bytes]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    shards = str(pack([{"__key__": "0", "png": encode(image)}]))
    config = DataConfig(shards, resolution=8, batch=20, crop=Crop.scaled, crop_scale=[0.6, 0.9], flip=True)
    [whole] = take(DataStream(config, seed=0), 1)
    flips, places, sizes = augmentation_words(0, np.arange(20))[:, :3].T.tolist()
    for n, row in enumerate(whole.x.numpy()):
        expected = scaled_crop(image.transpose(2, 0, 1), 8, (0.6, 0.9), places[n], sizes[n])
        np.testing.assert_array_equal(row, expected[:, :, ::-1] if flips[n] >> 63 else expected)
    assert torch.equal(take(DataStream(config, seed=0), 1, cursor=13)[0].x[:7], whole.x[13:])


@pytest.mark.parametrize("channels", [1, 3])
def test_both_decoders_give_the_same_batches(
    pack: Callable[..., Path], encode: Callable[..., bytes], channels: int
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (12, 11, 13, 3), dtype=np.uint8)
    formats = ("png", "jpeg", "webp")
    samples = [
        {"__key__": f"{i}", formats[i % 3]: encode(image[:8, :8] if i % 2 else image, formats[i % 3])}
        for i, image in enumerate(pixels)
    ]
    config = DataConfig(str(pack(samples)), 8, channels, batch=24, crop=Crop.random, flip=True)
    fast, pillow = (take(DataStream(replace(config, decoder=decoder), 5), 2) for decoder in Decoder)
    for ours, theirs in zip(fast, pillow, strict=True):
        assert torch.equal(ours.x, theirs.x)
    assert fast[0].x.is_contiguous(memory_format=torch.channels_last)


def test_captions_come_with_their_images(
    pack: Callable[..., Path], number: Callable[..., dict[str, bytes]]
) -> None:
    samples = [number(i) | {"json": f'{{"caption": "Nº {i}"}}'.encode()} for i in range(20)]
    config = DataConfig(str(pack(samples)), resolution=4, channels=1, batch=10, captions=True, workers=3)
    for batch in take(DataStream(config, seed=2), 3):
        assert batch.captions == tuple(f"Nº {int(i)}" for i in batch.x[:, 0, 0, 0])
    assert take(DataStream(replace(config, captions=False), seed=2), 1)[0].captions is None
    del samples[7]["json"]
    with pytest.raises(ValueError, match=r"key '000007' has no \.json member, which captions are in"):
        take(DataStream(replace(config, shards=str(pack(samples, "fewer"))), seed=2), 2)


def test_the_digits_come_through_whole(digits: Path) -> None:
    from data_pipeline.sources import Digits

    stream = DataStream(DataConfig(str(digits), resolution=8, channels=1, batch=1442, labels=True), seed=0)
    [batch] = take(stream, 1)
    source, order = Digits("train"), epoch_order(0, 0, 1442)
    assert np.array_equal(batch.x[:, 0].numpy(), source._images[order])
    assert batch.condition is not None
    assert batch.condition.tolist() == np.array(source._labels)[order].tolist()
    assert len(stream) == 1442


def test_threads_end_with_the_context(config: DataConfig) -> None:
    stream = DataStream(config, seed=0)
    with stream.open(0) as batches:
        next(batches)
        assert data_threads()
    assert not data_threads()
    with pytest.raises(ValueError, match="the stream is closed"):
        next(batches)
    batches.close()


def test_threads_end_after_a_break_and_after_an_error(config: DataConfig) -> None:
    stream = DataStream(replace(config, workers=5, prefetch=50), seed=0)

    def consume_one() -> None:
        with stream.open(0) as batches:
            for batch in batches:
                raise KeyError(batch.cursor)

    with pytest.raises(KeyError, match="12"):
        consume_one()
    assert not data_threads()


def test_closing_does_not_wait_for_what_was_loaded_ahead(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = DataStream(replace(config, workers=1, prefetch=100), seed=0)
    decode = stream._dataset.decode

    def slow(image: Encoded, room: np.ndarray, *words: int) -> None:
        time.sleep(0.01)  # a hundred batches of twelve would take 12 seconds
        decode(image, room, *words)

    monkeypatch.setattr(stream._dataset, "decode", slow)
    started = time.perf_counter()
    with stream.open(0) as batches:
        next(batches)
        waited = batches.waiting_seconds
    assert time.perf_counter() - started < 3
    assert 0.1 < waited < 3


def test_waiting_is_only_the_callers(config: DataConfig) -> None:
    with DataStream(config, seed=0).open(0) as batches:
        next(batches)
        time.sleep(0.3)  # four batches of twelve tiny images are ready after this
        before = batches.waiting_seconds
        next(batches)
        assert batches.waiting_seconds - before < 0.1


@pytest.mark.parametrize(
    ("world", "accumulation", "message"),
    [
        (5, 1, r"data\.batch must be a positive multiple of the number of ranks \(5\), got 12"),
        (2, 4, r"data\.batch must divide into 2 ranks of 4 micro-batches each, got 12, which is 6 images"),
        (1, 0, "of 0 micro-batches"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused(
    config: DataConfig, world: int, accumulation: int, message: str
) -> None:
    stream = DataStream(config, seed=0)
    stream.open(0, 0, 2, accumulation=3).close()
    with pytest.raises(ValueError, match=message):
        stream.open(0, 0, world, accumulation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, r"data\.batch must be at least 1, got 0"),
        ({"window": -1}, r"data\.window must be at least 0, got -1"),
        ({"lanes": 0}, r"data\.lanes must be at least 1, got 0"),
        ({"resolution": -8}, r"data\.resolution must be at least 1, got -8"),
        ({"workers": -1}, r"data\.workers must be at least 0, got -1"),
        ({"prefetch": 0}, r"data\.prefetch must be at least 1, got 0"),
        ({"channels": 2}, r"data\.channels must be 1 \(gray\) or 3 \(colour\), got 2"),
        ({"shards": ""}, r"data\.shards must name a folder"),
        ({"crop_scale": [0.5]}, r"data\.crop_scale must be two shares in \(0, 1\], in order, got \[0\.5\]"),
        ({"crop_scale": [0.9, 0.5]}, r"in order, got \[0\.9, 0\.5\]"),
        ({"crop_scale": [0.0, 1.0]}, r"in order, got \[0\.0, 1\.0\]"),
        ({"crop_scale": [0.5, 1.1]}, r"in order, got \[0\.5, 1\.1\]"),
    ],
)
def test_a_config_checks_its_fields(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DataConfig(), **change)  # type: ignore[arg-type]


def test_images_that_do_not_fit_are_refused_before_anything_is_spent(config: DataConfig) -> None:
    with pytest.raises(
        ValueError, match=r"part-000\d\.tar, key '\d+', png at bytes \d+:\d+: .*4x4 pixels, smaller"
    ):
        DataStream(replace(config, resolution=32), seed=0)
    with pytest.raises(ValueError, match=r"set data\.crop=center or data\.crop=random"):
        DataStream(replace(config, resolution=2), seed=0)


def test_labels_must_be_everywhere(pack: Callable[..., Path], number: Callable[..., dict[str, bytes]]) -> None:
    samples = [number(i) for i in range(20)]
    missing = int(epoch_order(0, 0, 20)[13])
    del samples[missing]["cls"]
    config = DataConfig(str(pack(samples)), resolution=4, channels=1, batch=10, labels=True)
    with pytest.raises(ValueError, match=rf"part-000\d\.tar, key '{missing:06d}' has no class"):
        take(DataStream(config, seed=0), 2)
    assert take(DataStream(replace(config, labels=False), seed=0), 2)[1].condition is None


def test_a_label_that_is_no_integer_is_named(
    pack: Callable[..., Path], number: Callable[..., dict[str, bytes]]
) -> None:
    shards = pack([number(0) | {"cls": b"cat"}])
    with pytest.raises(ValueError, match=r"key '000000', cls at bytes \d+:\d+: a class label must be .* b'cat'"):
        DataStream(DataConfig(str(shards), resolution=4, channels=1, labels=True), seed=0)


def test_a_class_that_the_network_does_not_know_is_named_with_its_shard_and_key(config: DataConfig) -> None:
    said = r"shard .*part-000\d\.tar, key '0000\d\d', cls at .*must be below network\.classes=7, got [789]$"
    with pytest.raises(ValueError, match=said):
        take(DataStream(config, seed=3, classes=7), 3)
    assert len(take(DataStream(config, seed=3, classes=10), 3)) == 3
    assert len(take(DataStream(replace(config, labels=False), seed=3, classes=7), 3)) == 3


def test_shards_of_more_classes_than_the_network_knows_are_refused_at_once(digits: Path) -> None:
    config = DataConfig(str(digits), resolution=8, channels=1, labels=True)
    with pytest.raises(ValueError, match=r"has 10 classes, more than network\.classes=9: set network\.classes=10"):
        DataStream(config, seed=0, classes=9)
