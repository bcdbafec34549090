"""Saving while training goes on: a short copy, then a thread that writes it."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException

from trainer.checkpoints.contents import Place, everything_in
from trainer.checkpoints.division import division
from trainer.checkpoints.listing import Listing, sync
from trainer.checkpoints.manifest import Manifest, Saved
from trainer.checkpoints.planner import ShardSavePlanner
from trainer.checkpoints.snapshot import Snapshot
from trainer.checkpoints.storage import Writer
from trainer.checkpoints.tensor_file import BYTES, Chunk
from trainer.distributed import World
from trainer.state import TrainState


class Saver:
    """Saves one state, again and again. Every rank makes one and calls it alike.

    The copy's memory, the division of the work and the group that the threads talk in are made once.
    """

    def __init__(self, listing: Listing, state: TrainState, world: World, patience: float) -> None:
        self.listing, self.state, self.world = listing, state, world
        everything = everything_in(state)
        self.shapes = {key: shard.shape for key, shard in everything.items()}
        mine = [key for key, rank in division(world, everything).items() if rank == world.rank]
        self.snapshot = Snapshot({key: everything[key] for key in mine})
        # Its own group: what training says meanwhile in the other one does not come between.
        self.group = (
            dist.new_group(backend="gloo", timeout=timedelta(seconds=patience)) if world.size > 1 else None
        )
        self.thread = ThreadPoolExecutor(1, "checkpoint")

    def __call__(self) -> Future[str]:
        """Copies the state as it is now and begins to write it. The result says what was saved."""
        place = Place.of(self.state, self.world, self.listing.directory.parent / "config.yaml")
        self.snapshot.take()
        return self.thread.submit(self.write, place)

    def write(self, place: Place) -> str:
        """Writes the copy, together with the other ranks' threads."""
        start, target = time.monotonic(), self.listing.named(place.images)
        writer = Writer(
            self.listing.partial(place.images),
            self.world.rank,
            begin=lambda: self.listing.begin(place.images),
            commit=lambda chunks, files: self.commit(place, chunks, files),
        )
        try:
            dcp.save(
                {},
                storage_writer=writer,
                planner=ShardSavePlanner(self.snapshot.shards),
                process_group=self.group,
                no_dist=self.group is None,
            )
        except CheckpointException as error:
            if self.world.is_main:
                shutil.rmtree(self.listing.partial(place.images), ignore_errors=True)
            raise self.failure(target, error) from error
        except RuntimeError as error:  # of the group: a rank is gone, or too late
            raise OSError(f"could not save checkpoint {target}: the ranks lost each other: {error}") from error
        megabytes = sum(map(math.prod, self.shapes.values())) * BYTES / 1e6
        return f"saved {target}: {megabytes:.1f} MB in {time.monotonic() - start:.2f} s"

    def commit(self, place: Place, chunks: Mapping[str, list[Chunk]], files: Mapping[str, object]) -> None:
        """On one rank, when all have written: writes the manifest and gives the checkpoint its name."""
        kinds: dict[str, dict[str, Saved]] = {}
        for key, shape in self.shapes.items():
            kind, _, name = key.partition("/")
            in_order = sorted(chunks.get(key, []), key=lambda chunk: chunk.start)
            kinds.setdefault(kind, {})[name] = Saved(tuple(shape), tuple(in_order))
        partial = self.listing.partial(place.images)
        manifest = Manifest(partial, place.images, place.cursor, place.data, files, kinds, place.about)
        manifest.check()
        manifest.path.write_text(manifest.text())
        sync(manifest.path)
        self.listing.commit(place.images)

    def failure(self, target: Path, error: CheckpointException) -> BaseException:
        """What every rank raises for what one of them met."""
        rank, (cause, _) = min(error.failures.items(), key=lambda failed: failed[0])
        if not isinstance(cause, OSError):
            return cause
        stays = self.listing.all()[-1].name if self.listing.all() else "none"
        where = f"rank {rank}: " if self.world.size > 1 else ""
        return OSError(f"could not save checkpoint {target}: {where}{cause}; the latest stays {stays}")

    def close(self) -> None:
        """Ends the thread, which has nothing left to do."""
        self.thread.shutdown()
