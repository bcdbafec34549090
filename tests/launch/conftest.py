"""Shards and a finished run that the tests of the doors share."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.sources import Digits
from data_pipeline.write import write_shards
from tests.launch.doors import SMALL, opened


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed digits, with a train and a test part; read-only."""
    out = tmp_path_factory.mktemp("digits")
    for split in ("train", "test"):
        write_shards(Digits(split), out / split)
    return out


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """The directory of a small run that nothing interrupted; read-only."""
    directory = tmp_path_factory.mktemp("finished")
    opened("train", *SMALL, f"data.shards={digits}/train", f"run.directory={directory}")
    return directory
