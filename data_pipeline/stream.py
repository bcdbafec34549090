"""DataStream: shards to batches, in an order that is a pure function of (seed, position)."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from itertools import chain

import numpy as np
from jaxtyping import Int64, UInt8

from data_pipeline.batches import Batch, Batches, Skip
from data_pipeline.config import DataConfig, OnError
from data_pipeline.dataset import Dataset
from data_pipeline.decode import UndecodableImage
from data_pipeline.order import Order, augmentation_words, check_micro_batches
from data_pipeline.shards import ShardSet
from data_pipeline.transforms import horizontal_flip

__all__ = ["Batch", "Batches", "DataConfig", "DataStream", "OnError"]


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
        self.shards = ShardSet.open(config.shards)
        self._dataset = Dataset(self.shards, config, classes=classes if config.labels else 0)
        self._order = Order(seed, self.shards.size)
        self._undecodable: dict[int, str] = {}
        image = np.empty((1, config.channels, config.resolution, config.resolution), np.uint8)
        label = np.empty(1, np.int64) if config.labels else None
        self._load(np.arange(1), image, label, threading.Event())
        self._dataset.close()

    def __len__(self) -> int:
        """The number of samples in an epoch."""
        return self.shards.size

    @property
    def fingerprint(self) -> str:
        """Of the samples that the cursor counts in."""
        return self.shards.fingerprint

    def open(self, cursor: int, rank: int = 0, world: int = 1, accumulation: int = 1) -> Batches:
        """This rank's part of the global batches from stream position ``cursor`` on.

        Raises:
            ValueError: the batch does not divide into ``world`` ranks of ``accumulation`` micro-batches each.
        """
        share = partial(self._order.positions, batch=self.config.batch, rank=rank, world=world)
        share(cursor)  # refuses what is no place in the stream
        check_micro_batches(self.config.batch, world, accumulation)
        return Batches(self.config, self._load, share, cursor, on_close=self._dataset.close)

    def _load(
        self,
        positions: Int64[np.ndarray, " count"],
        images: np.ndarray,
        labels: np.ndarray | None,
        unwanted: threading.Event,
    ) -> list[Skip]:
        """Fill the arrays with the samples at stream positions of one batch: the work of one worker thread."""
        samples = self._order.samples(positions).tolist()
        words = augmentation_words(self.seed, positions).tolist()
        skips: list[Skip] = []
        for slot, (position, sample, (flip_word, crop_word, *_)) in enumerate(
            zip(positions.tolist(), samples, words, strict=True)
        ):
            if unwanted.is_set():
                break
            candidates = chain((sample,), self._order.following(position))
            sample, image = self._first_decodable(candidates, crop_word, skips)
            images[slot] = horizontal_flip(image, flip_word >> 63 if self.config.flip else 0)
            if labels is not None:
                labels[slot] = self._dataset.label(sample)
        return skips

    def _first_decodable(
        self, candidates: Iterable[int], crop_word: int, skips: list[Skip]
    ) -> tuple[int, UInt8[np.ndarray, "c h w"]]:
        for sample in candidates:
            reason = self._undecodable.get(sample)
            if reason is None:
                try:
                    return sample, self._dataset.image(sample, crop_word)
                except UndecodableImage as error:
                    if self.config.on_error is not OnError.skip:
                        raise
                    reason = self._undecodable[sample] = str(error)
            skips.append(Skip(sample, reason))
        raise ValueError(f"data.shards={self.config.shards}: no sample can be decoded, as {reason}")
