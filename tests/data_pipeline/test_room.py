"""The memory of a batch is used again when nobody can see it any more, and never before."""

from __future__ import annotations

import gc

import numpy as np
import torch

from data_pipeline.config import DataConfig
from data_pipeline.room import Rooms

CONFIG = DataConfig("shards", resolution=4, channels=3, labels=True)


def address(images: np.ndarray) -> int:
    return images.__array_interface__["data"][0]


def test_a_batch_in_use_keeps_its_memory_and_a_dropped_one_gives_it_back() -> None:
    rooms = Rooms(CONFIG, 5)
    first = torch.from_numpy(rooms.take().images)
    second = torch.from_numpy(rooms.take().images)
    assert first.data_ptr() != second.data_ptr()
    place, row = first.data_ptr(), first[2:3].numpy()
    del first
    gc.collect()
    assert address(rooms.take().images) != place  # a view of a view still sees it
    row[...] = 7
    del row
    gc.collect()
    assert address(rooms.take().images) == place
    assert second.data_ptr() != place


def test_channels_lie_innermost_and_parts_are_views() -> None:
    room = Rooms(CONFIG, 5).take()
    assert torch.from_numpy(room.images).is_contiguous(memory_format=torch.channels_last)
    part = room.part(1, 3)
    part.images[...] = 9
    part.labels[...] = 8  # type: ignore[index]
    assert (room.images[1:3] == 9).all()
    assert room.labels is not None
    assert room.labels[1:3].tolist() == [8, 8]
    assert part.captions is None
