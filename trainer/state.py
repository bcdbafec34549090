"""Where a run stands."""

from __future__ import annotations

from dataclasses import dataclass

from data_pipeline.stream import Batch
from trainer.ema import Ema
from trainer.engines.engine import Engine


@dataclass
class TrainState:
    """All that training changes. Everything else is a pure function of it and the config.

    images: seen so far, by which progress is counted. cursor: the position in the endless stream of data.
    data: the fingerprint of the shards that the cursor counts in.
    """

    engine: Engine
    ema: Ema
    data: str = ""
    images: int = 0
    cursor: int = 0

    def advance(self, batch: Batch) -> None:
        """The batch has been learned from; or passed over, as its gradient was not finite: it is not repeated."""
        self.images += batch.global_size
        self.cursor = batch.cursor
