"""A source of forty tiny images, of a hundredth of a second each, that imports next to nothing."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
from PIL import Image

from data_pipeline.decode import encode_png
from data_pipeline.documents import Json


class Slow:
    """Image i is gray of value i. Whoever packs number `fatal` is killed."""

    description, class_names = "slow images", ()
    channels, resolution = 1, 4

    def __init__(self, seconds: float = 0.01, fatal: int = -1) -> None:
        self.seconds, self.fatal = seconds, fatal

    def __len__(self) -> int:
        return 40

    def sample(self, i: int) -> dict[str, str | bytes]:
        time.sleep(self.seconds)
        if i == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"__key__": f"{i:08d}", "png": encode_png(Image.fromarray(np.full((4, 4), i, np.uint8)))}

    def preparation(self) -> dict[str, Json]:
        return {"source": "slow", "version": 1, "samples": 40}
