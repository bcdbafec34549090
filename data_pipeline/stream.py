"""DataStream: shards to batches, in an order that is a pure function of (seed, position)."""

from __future__ import annotations

import os
import threading
from functools import partial
from itertools import chain

import numpy as np
from jaxtyping import Int64

from data_pipeline.batches import Batch, Batches, Skip
from data_pipeline.config import DataConfig, OnError
from data_pipeline.dataset import Dataset, Encoded
from data_pipeline.decode import UndecodableImage
from data_pipeline.order import Order, augmentation_words, check_micro_batches
from data_pipeline.room import Room, Rooms
from data_pipeline.shards import ShardSet
from data_pipeline.storage import Unreachable
from data_pipeline.transforms import mirror

# Images are read ahead of their decoding, some at once: right after a decode, which fills the processor's caches,
# every line of Python costs several times as much.
READ_TOGETHER = 16

__all__ = ["Batch", "Batches", "DataConfig", "DataStream", "OnError"]


def readers_of_node(lanes: int, world: int) -> int:
    """How many ranks of this node read other shards than each other: no more than lanes begin there."""
    stated = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or "1"
    ranks = max(1, min(int(stated), world))
    return min(ranks, -(-ranks * lanes // world))


class DataStream:
    """An endless stream of samples, epoch after epoch, that opens at any position and for any rank.

    The shards are opened and the first sample is decoded here, so that bad input fails before anything is
    spent. ``classes``: how many the network knows; 0 takes any label.

    Raises:
        ValueError: what ``ShardSet.open`` refuses, or a first sample that does not decode or fit.
    """

    def __init__(self, config: DataConfig, seed: int, classes: int = 0) -> None:
        self.config = config
        self.seed = seed
        self.shards = ShardSet.open(config.shards, config.access)
        self._dataset = Dataset(self.shards, config, classes=classes if config.labels else 0)
        self._order = Order(seed, self.shards.sizes, config.window, config.lanes)
        self._undecodable: dict[int, str] = {}
        self._load(np.arange(1), Rooms(config, 1).take(), threading.Event())
        self._dataset.close()

    def __len__(self) -> int:
        """The number of samples in an epoch."""
        return self.shards.size

    @property
    def fingerprint(self) -> str:
        """Of the samples that the cursor counts in."""
        return self.shards.fingerprint

    def open(
        self, cursor: int, rank: int = 0, world: int = 1, accumulation: int = 1, pinned: bool = False
    ) -> Batches:
        """This rank's part of the global batches from stream position ``cursor`` on.

        ``pinned``: their pixels lie in memory that an accelerator reads by itself.

        Raises:
            ValueError: the batch does not divide into ``world`` ranks of ``accumulation`` micro-batches each.
        """
        share = partial(self._order.positions, batch=self.config.batch, rank=rank, world=world)
        share(cursor)  # refuses what is no place in the stream
        check_micro_batches(self.config.batch, world, accumulation)
        ahead = self.shards.storage.ahead(
            partial(self._order.shards_ahead, batch=self.config.batch, rank=rank, world=world),
            every=max(self.config.batch, self._window_size() // 4),
            readers=readers_of_node(self.config.lanes, world),
        )
        return Batches(self.config, self._load, share, cursor, ahead, self._dataset.close, pinned)

    def _window_size(self) -> int:
        """About how many positions pass while every lane reads one window."""
        if self.config.window == 0:
            return len(self)
        return min(len(self), self.config.lanes * self.config.window * len(self) // len(self.shards.shards))

    def _load(self, positions: Int64[np.ndarray, " count"], room: Room, unwanted: threading.Event) -> list[Skip]:
        """Load the samples at stream positions of one batch: the work of one worker thread."""
        samples = self._order.samples(positions).tolist()
        words = augmentation_words(self.seed, positions).tolist()
        encoded: list[Encoded | None] = []
        skips: list[Skip] = []
        for slot, (position, sample) in enumerate(zip(positions.tolist(), samples, strict=True)):
            if slot % READ_TOGETHER == 0:
                encoded += map(self._read, samples[slot : slot + READ_TOGETHER])
            if unwanted.is_set():
                break
            flip_word, *crop_words, _ = words[slot]
            image = room.images[slot]
            self._fill(room.part(slot, slot + 1), position, sample, encoded.pop(0), crop_words, skips)
            if self.config.flip and flip_word >> 63:
                mirror(image)
        return skips

    def _read(self, sample: int) -> Encoded | None:
        """The image of a sample, or None of one that cannot be: when its turn comes, it is told why."""
        try:
            return None if sample in self._undecodable else self._dataset.read(sample)
        except UndecodableImage:
            return None

    def _fill(
        self,
        room: Room,
        position: int,
        sample: int,
        encoded: Encoded | None,
        crop_words: list[int],
        skips: list[Skip],
    ) -> None:
        """Put a sample, or the first of its substitutes that can be read, into the one row of ``room``."""
        for candidate in chain((sample,), self._order.following(position)):
            reason = self._undecodable.get(candidate)
            if reason is None:
                try:
                    self._dataset.decode(encoded or self._dataset.read(candidate), room.images[0], *crop_words)
                    self._annotate(room, candidate)
                    return
                except UndecodableImage as error:
                    if self.config.on_error is not OnError.skip:
                        raise UndecodableImage(f"{error} (data.on_error=skip goes on without it)") from error
                    reason = str(error)
                    if not isinstance(error.__cause__, Unreachable):  # which may be had later
                        self._undecodable[candidate] = reason
            encoded = None
            skips.append(Skip(position, reason))
        raise ValueError(f"data.shards={self.config.shards}: no sample can be decoded, as {reason}")

    def _annotate(self, room: Room, sample: int) -> None:
        if room.labels is not None:
            room.labels[0] = self._dataset.label(sample)
        if room.captions is not None:
            room.captions[0] = self._dataset.caption(sample)
