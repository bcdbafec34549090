"""Servers and caches for the tests of remote shards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.remote.access import Access
from tests.data_pipeline.remote.server import Server


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder that the server serves."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def server(site: Path) -> Iterator[Server]:
    with Server(site) as server:
        yield server


@pytest.fixture
def access(tmp_path: Path) -> Access:
    """Little patience, and a cache of its own."""
    return Access(str(tmp_path / "cache"), cache_bytes=2**24, timeout=0.3, retries=3, pause=0.01)


@pytest.fixture
def stopped() -> threading.Event:
    """Nobody stops."""
    return threading.Event()
