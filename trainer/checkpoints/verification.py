"""Whether every byte of a checkpoint is what was written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from xxhash import xxh3_128_hexdigest

from trainer.checkpoints.manifest import Manifest
from trainer.checkpoints.storage import THREADS, check_file
from trainer.checkpoints.tensor_file import Chunk, Stretch, read_stretch


def faults(manifest: Manifest) -> list[str]:
    """What is wrong with each file that is not what was written."""
    chunks: dict[str, list[Chunk]] = {name: [] for name in manifest.files}
    for _, saved in manifest.items():
        for chunk in saved.chunks:
            chunks[chunk.file].append(chunk)
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(partial(fault, manifest), chunks, chunks.values())
        return [each for each in found if each]


def fault(manifest: Manifest, name: str, chunks: list[Chunk]) -> str:
    """The first thing that is wrong with a file; nothing where it is whole."""
    path, facts = manifest.directory / name, manifest.files[name]
    try:
        check_file(path, facts)
        with path.open("rb", buffering=0) as file:
            begin = min((chunk.offset for chunk in chunks), default=0)
            if "header" in facts and xxh3_128_hexdigest(file.read(begin)) != facts["header"]:
                return f"{path} was altered: its header has another checksum than the manifest states"
            for chunk in sorted(chunks, key=lambda chunk: chunk.offset):
                into = torch.empty(chunk.count)
                read_stretch(file, Stretch(path, chunk, 0, into), into)
    except (ValueError, OSError) as error:
        return str(error)
    return ""
