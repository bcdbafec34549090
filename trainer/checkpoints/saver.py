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

from trainer.checkpoints.claim import Claim, Superseded
from trainer.checkpoints.contents import Standing, everything_in
from trainer.checkpoints.division import division
from trainer.checkpoints.listing import Listing, sync
from trainer.checkpoints.manifest import Manifest, Saved
from trainer.checkpoints.planner import ShardSavePlanner
from trainer.checkpoints.snapshot import Snapshot
from trainer.checkpoints.storage import Writer
from trainer.checkpoints.tensor_file import BYTES, Chunk
from trainer.distributed import LostRank, World, is_broken_exchange, meeting
from trainer.state import TrainState


class Saver:
    """Saves one state, again and again. Every rank makes one and calls it alike.

    The copy's memory, the division of the work and the group that the threads talk in are made once.
    claim: of this launch. about: as in Manifest.
    """

    def __init__(
        self,
        listing: Listing,
        claim: Claim,
        about: Mapping[str, object],
        state: TrainState,
        world: World,
        patience: float,
    ) -> None:
        self.listing, self.claim, self.about, self.state, self.world = listing, claim, about, state, world
        everything = everything_in(state)
        self.shapes = {key: shard.shape for key, shard in everything.items()}
        mine = [key for key, rank in division(world, everything).items() if rank == world.rank]
        self.snapshot = Snapshot({key: everything[key] for key in mine})
        # Its own group: what training says meanwhile in the other one does not come between.
        self.group = own_group(patience) if world.size > 1 else None
        self.thread = ThreadPoolExecutor(1, "checkpoint")

    def __call__(self) -> Future[str]:
        """Copies the state as it is now and begins to write it. The result says what was saved."""
        standing = Standing.of(self.state)
        self.snapshot.take()
        return self.thread.submit(self.write, standing)

    def write(self, standing: Standing) -> str:
        """Writes the copy, together with the other ranks' threads. Whatever goes wrong is raised as OSError."""
        start, target = time.monotonic(), self.listing.named(standing.images)
        partial = self.listing.partial(standing.images, self.claim.token)
        writer = Writer(
            partial,
            self.world.rank,
            begin=lambda: self.begin(partial),
            commit=lambda chunks, files: self.commit(partial, standing, chunks, files),
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
                shutil.rmtree(partial, ignore_errors=True)
            raise self.failure(target, error) from error
        except RuntimeError as error:
            kind = LostRank if is_broken_exchange(error) else OSError
            raise kind(f"could not save checkpoint {target}: {error}") from error
        megabytes = sum(map(math.prod, self.shapes.values())) * BYTES / 1e6
        return f"saved {target}: {megabytes:.1f} MB in {time.monotonic() - start:.2f} s{self.retire()}"

    def begin(self, partial: Path) -> None:
        """On one rank, before any writes."""
        self.claim.check()
        self.listing.begin(partial)

    def commit(
        self,
        partial: Path,
        standing: Standing,
        chunks: Mapping[str, list[Chunk]],
        files: Mapping[str, object],
    ) -> None:
        """On one rank, when all have written: writes the manifest and gives the checkpoint its name."""
        kinds: dict[str, dict[str, Saved]] = {}
        for key, shape in self.shapes.items():
            kind, _, name = key.partition("/")
            in_order = sorted(chunks.get(key, []), key=lambda chunk: chunk.start)
            kinds.setdefault(kind, {})[name] = Saved(tuple(shape), tuple(in_order))
        manifest = Manifest(partial, standing.images, standing.cursor, standing.data, files, kinds, self.about)
        manifest.check()
        manifest.path.write_text(manifest.text())
        sync(manifest.path)
        self.claim.check()
        self.listing.commit(partial, standing.images)

    def retire(self) -> str:
        """On one rank takes away the oldest checkpoints. The new one is whole, so what goes wrong is only told."""
        try:
            if self.world.is_main:
                self.listing.retire()
        except OSError as error:
            return f"; an old checkpoint could not be removed, the next start tries again: {error}"
        return ""

    def failure(self, target: Path, error: CheckpointException) -> OSError:
        """What every rank raises for what one of them met."""
        rank, (cause, _) = min(error.failures.items(), key=lambda failed: failed[0])
        where = f"rank {rank}: " if self.world.size > 1 else ""
        if isinstance(cause, Superseded):
            return Superseded(f"could not save checkpoint {target}: {where}{cause}")
        met = cause if isinstance(cause, OSError) else f"{type(cause).__name__}: {cause}"
        stays = self.listing.all()[-1].name if self.listing.all() else "none"
        return OSError(f"could not save checkpoint {target}: {where}{met}; the latest stays {stays}")

    def close(self) -> None:
        """Ends the thread, which has nothing left to do."""
        self.thread.shutdown()


def own_group(patience: float) -> dist.ProcessGroup:
    """One more group of all ranks, over gloo."""
    with meeting(patience):
        return dist.new_group(backend="gloo", timeout=timedelta(seconds=patience))
