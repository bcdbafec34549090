"""Recent: what was made last, kept for those who ask for it again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """What ``make`` gives for each key, of which the ``most`` used last are kept. Thread-safe.

    One thread makes at a time, so that nothing is made twice at once.
    """

    def __init__(self, make: Callable[[K], V], most: int) -> None:
        assert most >= 1, most
        self.most = most
        self._make = make
        self._kept: dict[K, V] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, key: K) -> V:
        with self._lock:
            if key in self._kept:
                value = self._kept.pop(key)
            else:
                if len(self._kept) == self.most:  # makes room before there is one more
                    del self._kept[next(iter(self._kept))]
                value = self._make(key)
            self._kept[key] = value  # last in the dictionary: used most recently
            return value
