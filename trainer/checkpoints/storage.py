"""Where DCP puts and finds chunks: one safetensors file a rank, and the manifest."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from trainer.checkpoints.first_format import check_sha256
from trainer.checkpoints.manifest import Manifest
from trainer.checkpoints.planner import ShardLoadPlanner, ShardSavePlanner
from trainer.checkpoints.tensor_file import Chunk, Stretch, read, write
from trainer.shard import Shards

THREADS = 2  # that read at once: one copies out of the page cache while the other checks

# A single process needs no group, and says so itself.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


class Writer(StorageWriter):
    """Writes this rank's chunks to a file of its own; `commit` is called on one rank when all have written.

    It is given the chunks by key and the facts of every file.
    """

    def __init__(
        self,
        directory: Path,
        rank: int,
        begin: Callable[[], None],
        commit: Callable[[dict[str, list[Chunk]], dict[str, object]], None],
    ) -> None:
        self.path, self.begin, self.commit = directory / f"rank-{rank:05d}.safetensors", begin, commit

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A writer serves one save."""

    def set_up_storage_writer(self, is_coordinator: bool) -> None:
        """Nothing is known before the plan."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        self.begin()
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        assert isinstance(planner, ShardSavePlanner)
        shards = {item.index.fqn: planner.shards[item.index.fqn] for item in plan.items}
        chunks, facts = write(self.path, shards) if shards else ({}, {})
        return done(
            [WriteResult(item.index, facts["bytes"], (chunks[item.index.fqn], facts)) for item in plan.items]
        )

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        chunks: dict[str, list[Chunk]] = {}
        files: dict[str, object] = {}
        for result in (each for of_rank in results for each in of_rank):
            chunk, facts = result.storage_data
            chunks.setdefault(result.index.fqn, []).append(chunk)
            files[chunk.file] = facts
        self.commit(chunks, files)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


class Reader(StorageReader):
    """Reads the chunks that a manifest lists."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.saved = dict(manifest.items())

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A reader serves one load."""

    def read_metadata(self) -> Metadata:
        return Metadata(
            {
                key: TensorStorageMetadata(
                    TensorProperties(torch.float32),
                    torch.Size([saved.count]),
                    [
                        ChunkStorageMetadata(torch.Size([chunk.start]), torch.Size([chunk.count]))
                        for chunk in saved.chunks
                    ],
                )
                for key, saved in self.saved.items()
            }
        )

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None:
        """The manifest is all that is needed."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Before anything is overwritten: every file that is needed is there, and as long as it was."""
        for name in sorted({self.chunk(item).file for item in plan.items}):
            check_file(self.manifest.directory / name, self.manifest.files[name])
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        paths = {name: self.manifest.directory / name for name in self.manifest.files}
        stretches = []
        for item in plan.items:
            chunk = self.chunk(item)
            into = planner.resolve_tensor(item)
            stretches.append(Stretch(paths[chunk.file], chunk, item.storage_offsets[0], into))
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(read, shares(stretches, THREADS)))
        return done(None)

    def chunk(self, item: ReadItem) -> Chunk:
        """That an item reads from."""
        return self.saved[item.storage_index.fqn].chunks[item.storage_index.index]

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


def load(manifest: Manifest, shards: Shards) -> None:
    """Fills these shards, by kind/name, with what was saved of them. Each rank loads by itself.

    Raises ValueError, naming the file, where one is missing, cut short or altered.
    """
    try:
        dcp.load({}, storage_reader=Reader(manifest), planner=ShardLoadPlanner(shards), no_dist=True)
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise cause from None


def check_file(path: Path, facts: Mapping[str, object]) -> None:
    """Raises ValueError where a file is missing or another than the manifest says, as far as its size tells."""
    if not path.exists():
        raise ValueError(f"{path} is missing; the manifest lists it")
    if (size := path.stat().st_size) != facts["bytes"]:
        raise ValueError(
            f"{path} was altered or cut short: it has {size} bytes, the manifest says {facts['bytes']}"
        )
    if "sha256" in facts:
        check_sha256(path, facts)


def shares(stretches: list[Stretch], count: int) -> list[list[Stretch]]:
    """`count` parts of about as many elements, each in the order in which they lie in the files."""
    parts: list[list[Stretch]] = [[] for _ in range(count)]
    whole, before = sum(stretch.into.numel() for stretch in stretches), 0
    for stretch in sorted(
        stretches, key=lambda stretch: (stretch.chunk.file, stretch.chunk.offset, stretch.start)
    ):
        parts[before * count // whole].append(stretch)
        before += stretch.into.numel()
    return parts


def done(result: Any) -> Future[Any]:
    """A future that has come."""
    future: Future[Any] = Future()
    future.set_result(result)
    return future
