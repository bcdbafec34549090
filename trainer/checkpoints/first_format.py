"""Checkpoints of the first format: a safetensors file for each kind, each checked as a whole by its sha256."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from trainer.checkpoints.tensor_file import Chunk, wholes_in

Tensors = dict[str, dict[str, tuple[tuple[int, ...], tuple[Chunk, ...]]]]


def first_format(directory: Path, files: Mapping[str, Mapping[str, object]]) -> Tensors:
    """kind → name → shape and chunks, of the files that are there."""
    found = {}
    for name, facts in files.items():
        path = directory / name
        if path.name == name and path.exists():
            if path.stat().st_size != facts["bytes"]:
                raise ValueError(f"{path} was altered or cut short: the manifest says {facts['bytes']} bytes")
            wholes = wholes_in(path).items()
            found[path.stem] = {each: (shape, (chunk,)) for each, (shape, chunk) in wholes}
    return found


def check_sha256(path: Path, facts: Mapping[str, object]) -> None:
    """Raises ValueError unless the file is what the manifest says."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != facts["sha256"]:
        raise ValueError(f"{path} was altered: the manifest says sha256 {facts['sha256']}, the file has {found}")
