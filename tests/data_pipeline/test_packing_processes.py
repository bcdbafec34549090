"""Packing over processes: the same bytes as alone, after kill -9 of any of them or of all."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline.cifar import Cifar10
from data_pipeline.folder import Folder
from data_pipeline.idx import Mnist
from data_pipeline.sources import Digits, Photographs
from data_pipeline.write import write_shards
from tests.data_pipeline.slow import Slow
from tests.data_pipeline.test_cifar import COUNTS, batch
from tests.data_pipeline.test_crew import members_of
from tests.data_pipeline.test_idx import write as write_mnist

ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    write_shards(Slow(0.0), tmp_path / "whole", samples_per_shard=3)
    return contents(tmp_path / "whole")


def test_a_dead_worker_is_an_error_that_names_its_shard(tmp_path: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    message = r"the process at shard .*shard-000005\.tar was killed by signal 9; .* the same command goes on"
    with pytest.raises(ChildProcessError, match=message):
        write_shards(Slow(fatal=16), out, samples_per_shard=3, workers=2)
    assert not list(out.glob("*.partial"))
    packing = write_shards(Slow(), out, samples_per_shard=3, workers=2)
    assert packing.kept >= 4
    assert contents(out) == whole


PACK = """
import sys
from pathlib import Path
from tests.data_pipeline.slow import Slow
from data_pipeline.write import write_shards
tell = lambda done, total: print(done, flush=True)
write_shards(Slow(), Path(sys.argv[1]), samples_per_shard=3, workers=2, progress=tell)
"""


@pytest.mark.parametrize("everyone", [True, False])
def test_packing_goes_on_after_kill_9(tmp_path: Path, whole: dict[str, bytes], everyone: bool) -> None:
    chance, out = random.Random(everyone), tmp_path / "out"
    killed = 0
    for _ in range(3):
        first = subprocess.Popen(
            [sys.executable, "-c", PACK, str(out)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert first.stdout is not None
        done = 0
        while done < 6 + killed * 9 and (line := first.stdout.readline()):
            done = int(line)
        time.sleep(chance.random() * 0.05)
        members = members_of(first.pid)
        (os.killpg if everyone else os.kill)(first.pid, signal.SIGKILL)
        first.stdout.close()
        killed += first.wait() == -signal.SIGKILL
        while any(Path(f"/proc/{member}").exists() for member in members):
            time.sleep(0.01)
    assert killed == 3
    write_shards(Slow(), out, samples_per_shard=3)
    assert contents(out) == whole


def test_every_source_can_be_sent_to_another_process(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "cifar").mkdir()
    for name in COUNTS:
        (tmp_path / "cifar" / name).write_bytes(batch(name))
    (tmp_path / "images").mkdir()
    for i in range(3):
        (tmp_path / "images" / f"{i}.png").write_bytes(Photographs(count=3, resolution=6).sample(i)["png"])
    sources = [Digits("test"), Photographs(count=3, resolution=6), Folder(tmp_path / "images")]
    for source in [*sources, Mnist(tmp_path / "mnist"), Cifar10(tmp_path / "cifar")]:
        sent = pickle.loads(pickle.dumps(source))
        assert [sent.sample(i) for i in (2, 0)] == [source.sample(i) for i in (2, 0)]
