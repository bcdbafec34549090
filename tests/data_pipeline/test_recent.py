"""What was used last is kept, and made once however many threads ask for it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_pipeline.recent import Recent


def test_what_was_used_last_is_kept() -> None:
    made: list[int] = []
    recent = Recent(lambda key: (made.append(key), -key)[1], most=2)
    assert [recent[key] for key in (1, 2, 1, 3, 1, 2)] == [-1, -2, -1, -3, -1, -2]
    assert made == [1, 2, 3, 2]
    assert len(recent) == 2


def test_threads_that_ask_at_once_get_the_same_thing() -> None:
    def make(key: int) -> object:
        time.sleep(0.02)
        return object()

    recent = Recent(make, most=1)
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: recent[0], range(8)))) == 1


def test_what_cannot_be_made_is_not_kept() -> None:
    recent: Recent[int, float] = Recent(lambda key: 1 / key, most=1)
    with pytest.raises(ZeroDivisionError):
        recent[0]
    assert len(recent) == 0
    assert recent[2] == 0.5
