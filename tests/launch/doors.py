"""Opens the doors as a person would: in processes of their own, each with its command line and its status."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch

from tests.forked import context

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

# The digits experiment with a network of a few thousand parameters: 20 steps of 16 images.
SMALL = (
    "experiment=ddpm_digits",
    "run.images=320",
    "run.save_every=64",
    "run.log_every=32",
    "run.keep=0",
    "preview.every=0",
    "data.batch=16",
    "network.channels=8",
    "network.multipliers=[1,2]",
    "network.dropout=0.1",
    "network.groups=4",
    "optimizer.warmup_images=64",
    "ema.half_lives=[100,30]",
    "process.schedule.steps=20",
)


def start(door: str, *arguments: str) -> subprocess.Popen[str]:
    """The door `launch.NAME`, opened and left running."""
    return subprocess.Popen(
        [sys.executable, "-m", f"launch.{door}", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_on_ranks(size: int, module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The module's door, opened by torchrun in `size` processes and left running; errors go with the output."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    return subprocess.Popen(
        [*torchrun, "-m", module, *arguments],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def opened(door: str, *arguments: str, status: int = 0) -> str:
    """What the door printed; it must end with `status`."""
    with NamedTemporaryFile(suffix=".out") as output, NamedTemporaryFile(suffix=".err") as errors:
        process = context().Process(target=be_door, args=(door, arguments, ENVIRONMENT, output.name, errors.name))
        process.start()
        process.join(timeout=120)
        process.kill()
        process.join()
        printed = Path(output.name).read_text(), Path(errors.name).read_text()
    assert process.exitcode == status, f"{door} ended with {process.exitcode}:\n{printed[0]}\n{printed[1]}"
    return "".join(printed)


def be_door(door: str, arguments: tuple[str, ...], environment: dict[str, str], output: str, errors: str) -> None:
    """What `python -m launch.NAME` is, in a process that has the interpreter and torch already."""
    for number, path in ((1, output), (2, errors)):
        with open(path, "ab") as file:  # at its end, wherever that is: children write to it too
            os.dup2(file.fileno(), number)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = [f"launch/{door}.py", *arguments]
    runpy.run_module(f"launch.{door}", run_name="__main__", alter_sys=True)


def checkpoint_bytes(directory: Path) -> dict[str, bytes]:
    """Every file of a run's newest checkpoint, whole; of its manifest all but the config, which names the run."""
    newest = max((directory / "checkpoints").iterdir())
    found = {path.name: path.read_bytes() for path in sorted(newest.iterdir())}
    manifest = json.loads(found["manifest.json"])
    del manifest["config"], manifest["checksum"]
    return {**found, "manifest.json": json.dumps(manifest).encode()}
