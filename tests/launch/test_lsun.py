"""LSUN from its database to a curve: packed, streamed over http, killed and resumed on two ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_pipeline.manifest import MANIFEST, Manifest
from tests.data_pipeline.lsun import lsun_images, make_lmdb
from tests.data_pipeline.remote.nginx import nginx
from tests.launch.doors import opened, start_on_ranks

IMAGES, RESOLUTION, BATCH = 90, 16, 8
# The church experiment with a small network on small images: 40 steps, over three epochs. In fp32 the order of
# sums is of no weight.
SHRUNK = (
    "experiment=ddpm_lsun_church",
    f"data.resolution={RESOLUTION}",
    f"data.batch={BATCH}",
    "data.window=3",
    "data.lanes=2",
    f"run.images={40 * BATCH}",
    f"run.save_every={10 * BATCH}",
    f"run.log_every={2 * BATCH}",
    "preview.every=0",
    "engine.precision=fp32",
    "process.schedule.steps=20",
    "network.channels=8",
    "network.multipliers=[1,2]",
    "network.attention=[8]",
    "network.groups=4",
    f"optimizer.warmup_images={10 * BATCH}",
    "optimizer.learning_rate=1e-3",
)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A database in LSUN's layout, prepared as the paper prepares it and packed, ten images to a shard."""
    lmdb = make_lmdb(tmp_path / "church_outdoor_train_lmdb", lsun_images(IMAGES, height=20, width=24))
    out = tmp_path / "shards"
    opened("pack", "source=lsun", f"path={lmdb}", f"resolution={RESOLUTION}", "samples_per_shard=10", f"out={out}")
    return out


def losses(directory: Path) -> dict[int, float]:
    """The curve in TensorBoard, by images seen."""
    return {event.step: event.value for event in EventAccumulator(str(directory)).Reload().Scalars("loss")}


def requests(nginx_folder: Path) -> list[str]:
    """What the server has been asked for, line by line."""
    return (nginx_folder / "access.log").read_text().splitlines()


def cached_shards(shards: Path, cache: Path) -> list[str]:
    """The shards that lie in the cache, by their names at the server."""
    files = {path.stem for path in cache.rglob("*.tar")}
    return [entry.name for entry in Manifest.read(shards / MANIFEST).shards if entry.sha256 in files]


def test_a_run_over_http_killed_and_resumed_is_the_curve_of_one_that_read_its_disk(shards, tmp_path):
    opened("train", *SHRUNK, f"data.shards={shards}", f"run.directory={tmp_path / 'disk'}")
    with nginx(shards, tmp_path / "nginx") as address:
        over_http = [
            *SHRUNK,
            "engine=ddp",
            f"data.shards={address}",
            f"data.cache={tmp_path / 'cache'}",
            f"run.directory={tmp_path / 'http'}",
        ]
        killed = start_on_ranks(2, "tests.launch.faulty", *over_http, FAULT="die:1:25")
        output, _ = killed.communicate(timeout=200)
        assert killed.returncode == 1, output
        assert "Signal 9" in output
        assert max(losses(tmp_path / "http")) < 40 * BATCH
        saved = max(int(path.name) for path in (tmp_path / "http" / "checkpoints").iterdir())
        assert saved == 20 * BATCH
        cached, asked = cached_shards(shards, tmp_path / "cache"), requests(tmp_path / "nginx")
        assert cached
        resumed = start_on_ranks(2, "launch.train", *over_http)
        output, _ = resumed.communicate(timeout=200)
        assert resumed.returncode == 0, output
        # It has gone on from there, with the shards that were here.
        newest = max((tmp_path / "http").glob("events.*"), key=lambda path: path.stat().st_mtime)
        assert min(losses(newest)) == saved + 2 * BATCH
        again = requests(tmp_path / "nginx")[len(asked) :]
        assert not [line for line in again for name in cached if f"/{name} " in line]
    expected = losses(tmp_path / "disk")
    assert len(expected) == 20
    assert losses(tmp_path / "http") == pytest.approx(expected, rel=1e-5)
