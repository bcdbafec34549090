"""Checkpoints: directories of safetensors, named by the images seen, that exist whole or not at all.

    checkpoints/000001280000/parameters.safetensors     fp32 weights
                             exp_avg.safetensors …      Adam's moments
                             ema-100000.safetensors …   each average, by its half-life
                             manifest.json              images, cursor, versions, and every file's size and sha256

A checkpoint is written under another name and renamed when all of it is on the disk, so the newest directory is
the newest whole checkpoint, whenever the process dies. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.engines.engine import MOMENTS
from trainer.shard import Shards
from trainer.state import TrainState

FORMAT = 1
PARTIAL = ".partial"
FIELDS = {"images": int, "cursor": int, "data": str, "files": dict}
NEEDED = [f"{kind}.safetensors" for kind in ("parameters", *MOMENTS, "steps")]
State = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run. The newest `keep` of them are kept; 0 keeps all."""

    directory: Path
    keep: int = 0

    def all(self) -> list[Path]:
        """Every whole checkpoint, oldest first."""
        return sorted(path for path in self.directory.glob("*") if path.name.isdecimal())

    def latest(self) -> Path:
        """The newest whole checkpoint. Raises ValueError where there is none."""
        found = self.all()
        if not found:
            raise ValueError(f"{self.directory} holds no checkpoint; has the run saved one yet?")
        return found[-1]

    def at(self, images: int) -> Path:
        """The checkpoint after so many images; 0 means the newest. Raises ValueError where it is not there."""
        if not images:
            return self.latest()
        found = self.directory / f"{images:012d}"
        if not found.is_dir():
            there = ", ".join(str(int(path.name)) for path in self.all()) or "none"
            raise ValueError(f"{self.directory} holds no checkpoint after {images} images; it holds {there}")
        return found

    def save(self, state: TrainState) -> Path:
        """Writes a checkpoint and commits it. On failure, such as a full disk, the one before stays the latest."""
        target = self.directory / f"{state.images:012d}"
        if target.exists():
            return target  # the run stands where it was when it resumed: there is nothing new
        partial = target.with_suffix(PARTIAL)
        try:
            self._write(partial, state)
            partial.rename(target)
            sync(self.directory)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            stays = self.all()[-1].name if self.all() else "none"
            raise OSError(f"could not save checkpoint {target}: {error}; the latest stays {stays}") from error
        for old in self.all()[: -self.keep] if self.keep else []:
            shutil.rmtree(old.rename(old.with_suffix(PARTIAL)))  # never half a checkpoint under a whole one's name
        return target

    def _write(self, partial: Path, state: TrainState) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        averages = {ema_kind(half_life): state.ema.shards(half_life) for half_life in state.ema.averages}
        for kind, tensors in {**state.engine.state(), **averages}.items():
            path = partial / f"{kind}.safetensors"
            save_file({name: shard.whole.contiguous() for name, shard in tensors.items()}, path)
            sync(path)
        manifest = {
            "format": FORMAT,
            "images": state.images,
            "cursor": state.cursor,
            "data": state.data,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "files": {path.name: describe(path) for path in sorted(partial.iterdir())},
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        sync(partial / "manifest.json")
        sync(partial)

    def restore(self, state: TrainState) -> TrainState:
        """`state`, moved to the newest checkpoint if there is one, else as it was."""
        for torn in self.directory.glob(f"*{PARTIAL}"):
            shutil.rmtree(torn)
        found = self.all()
        if not found:
            return state
        manifest = read_manifest(found[-1])
        if manifest["data"] != state.data:
            raise ValueError(
                f"{found[-1]} was trained on other shards than data.shards holds now (by their checksums); give "
                "the old shards, wherever they lie, or another run.directory"
            )
        kinds = {Path(name).stem: load(found[-1], name, manifest) for name in manifest["files"]}
        ours = state.engine.state()
        for kind in ("parameters", *MOMENTS):
            check_names(kind, shapes(ours[kind]), kinds[kind])
        averages = {half_life: average_of(kinds, half_life, found[-1]) for half_life in state.ema.averages}
        for kind, shards in ours.items():
            fill(shards, kinds[kind])
        state.engine.refresh()
        for half_life, average in averages.items():
            fill(state.ema.shards(half_life), average)
        state.images, state.cursor = manifest["images"], manifest["cursor"]
        return state


def shapes(shards: Shards) -> dict[str, Tensor]:
    """Tensors of the same names and shapes, without memory."""
    return {name: torch.empty(shard.shape, device="meta") for name, shard in shards.items()}


def fill(shards: Shards, tensors: Mapping[str, Tensor]) -> None:
    """Copies whole tensors into the shards of the same names."""
    for name, shard in shards.items():
        shard.tensor.copy_(tensors[name].flatten()[shard.start : shard.stop])


def check_names(what: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Raises ValueError for the first name or shape in which a checkpoint differs from the configured network."""
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name not in theirs or name not in ours:
            where = "the checkpoint" if name in theirs else "the configured network"
            raise ValueError(f"the checkpoint is of another architecture: {what} {name!r} is only in {where}")
        if ours[name].shape != theirs[name].shape:
            raise ValueError(
                f"the checkpoint is of another architecture: {what} {name!r} has the shape "
                f"{tuple(theirs[name].shape)} there and {tuple(ours[name].shape)} in the configured network"
            )


def load_average(checkpoint: Path, half_life: float, shards: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights in a checkpoint, on the CPU, checked against the shapes of `shards`."""
    manifest = read_manifest(checkpoint)
    name = f"{ema_kind(half_life)}.safetensors"
    kinds = {Path(name).stem: load(checkpoint, name, manifest)} if name in manifest["files"] else {}
    average = average_of(kinds, half_life, checkpoint)
    check_names("averages", shards, average)
    return dict(average)


def average_of(kinds: State, half_life: float, checkpoint: Path) -> Mapping[str, Tensor]:
    """The average of `half_life` among a checkpoint's kinds. Raises ValueError where it is not among them."""
    kind = ema_kind(half_life)
    if kind not in kinds:
        raise ValueError(f"{checkpoint} holds no average with the half-life {half_life:g} (no {kind}.safetensors)")
    return kinds[kind]


def ema_kind(half_life: float) -> str:
    """The name that an average is kept under: with enough digits that no two half-lives share it."""
    return f"ema-{half_life:.17g}"


def read_manifest(checkpoint: Path) -> dict[str, object]:
    """A checkpoint's manifest. Raises ValueError where it is missing, damaged or of another format."""
    path = checkpoint / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{checkpoint} is no whole checkpoint: {path.name}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{path} is no manifest of format {FORMAT}, the one that this version reads")
    for field, kind in FIELDS.items():
        if not isinstance(manifest.get(field), kind):
            raise ValueError(f"{path}: {field} must be of the type {kind.__name__}, got {manifest.get(field)!r}")
    absent = [name for name in NEEDED if name not in manifest["files"]]
    if absent:
        raise ValueError(f"{path} lists no {', '.join(absent)}")
    return manifest


def load(checkpoint: Path, name: str, manifest: Mapping[str, object]) -> dict[str, Tensor]:
    """One file of a checkpoint, on the CPU. Raises ValueError where it is not what was written."""
    path = checkpoint / name
    if not path.exists():
        raise ValueError(f"{path} is missing; the manifest lists it")
    expected, found = manifest["files"][name], describe(path)
    if found != expected:
        raise ValueError(f"{path} was altered or cut short: the manifest says {expected}, the file has {found}")
    return load_file(path)


def describe(path: Path) -> dict[str, object]:
    """A file's size and checksum."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def sync(path: Path) -> None:
    """Waits until a file or a directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
