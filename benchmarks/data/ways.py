"""One way of loading batches, in a process of its own: prints the seconds that an image took.

Every way gives batches of 64 images as bytes, NCHW by their shape and with the channels innermost in memory, half of
them mirrored, in an order that it shuffles as it can. The peers mirror by the fastest call that their decoder's
library has.
"""

from __future__ import annotations

import argparse
import io
import random
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.data.corpus import write_mds

BATCH, SIDE, WARM_UP = 64, 256, 5
KEPT: list[torch.library.Library] = []  # for as long as the process lives
Decode = Callable[[bytes], np.ndarray]


def by_pillow(data: bytes) -> np.ndarray:
    """Decoded and perhaps mirrored."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.array(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image)


def by_simplejpeg(data: bytes) -> np.ndarray:
    """Decoded and perhaps mirrored."""
    import cv2
    from simplejpeg import decode_jpeg

    pixels = decode_jpeg(data, fastdct=False, fastupsample=False)
    return cv2.flip(pixels, 1) if random.random() < 0.5 else pixels


def by_opencv(data: bytes) -> np.ndarray:
    """Decoded and perhaps mirrored."""
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.flip(pixels, 1) if random.random() < 0.5 else pixels


DECODERS: dict[str, Decode] = {"pillow": by_pillow, "simplejpeg": by_simplejpeg, "opencv": by_opencv}


def ours(folder: Path, decode: Decode, workers: int) -> Iterator[Tensor]:
    """This repository's stream."""
    from data_pipeline.config import DataConfig
    from data_pipeline.stream import DataStream

    config = DataConfig(str(folder / "tars"), SIDE, batch=BATCH, flip=True, workers=workers)
    with DataStream(config, seed=0).open(0) as batches:
        for batch in batches:
            yield batch.x


def memory(folder: Path, decode: Decode, workers: int) -> Iterator[Tensor]:
    """No loader: ours' decoder alone, on files in memory; each image is given up for the next."""
    from data_pipeline.decoders import decode_pixels

    files = files_of(folder)
    nothing = torch.empty(BATCH, 3, SIDE, SIDE, dtype=torch.uint8)
    while True:
        for start in range(0, len(files) - BATCH + 1, BATCH):
            for data in files[start : start + BATCH]:
                decode_pixels(data, 3)
            yield nothing


def files_of(folder: Path) -> list[bytes]:
    """Every image, encoded."""
    files = []
    for shard in sorted((folder / "tars").glob("*.tar")):
        with tarfile.open(shard) as tar:
            files += [tar.extractfile(member).read() for member in tar]
    return files


def webdataset(folder: Path, decode: Decode, workers: int) -> Iterator[Tensor]:
    """webdataset's own loader over the same tars, with its buffer of a thousand samples to shuffle."""
    import webdataset as wds

    urls = sorted(map(str, (folder / "tars").glob("*.tar")))
    data = wds.WebDataset(urls, shardshuffle=len(urls), empty_check=False).repeat().shuffle(1000)
    # webdataset stacks arrays as they are; without workers it is iterated as it is.
    data = data.map(lambda sample: (decode(sample.get("jpg") or sample["webp"]),)).batched(BATCH, partial=False)
    loader = wds.WebLoader(data, batch_size=None, num_workers=workers) if workers else data
    for (pixels,) in loader:
        yield torch.as_tensor(pixels).permute(0, 3, 1, 2)


class Lmdb(torch.utils.data.Dataset[Tensor]):
    """A map-style dataset over one database, opened where it is read."""

    def __init__(self, folder: Path, decode: Decode) -> None:
        self.folder, self.decode, self.open = str(folder / "lmdb"), decode, None
        self.size = int((folder / "count").read_text())

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> Tensor:
        import lmdb

        if self.open is None:
            self.open = lmdb.open(self.folder, readonly=True, lock=False, readahead=False).begin(buffers=True)
        return torch.from_numpy(self.decode(self.open.get(f"{number:08d}".encode())))


def database(folder: Path, decode: Decode, workers: int) -> Iterator[Tensor]:
    """torch's DataLoader over LMDB."""
    return mapped(Lmdb(folder, decode), workers, shuffle=True)


def mosaicml(folder: Path, decode: Decode, workers: int) -> Iterator[Tensor]:
    """mosaicml-streaming's dataset, which shuffles, in torch's DataLoader."""
    define_what_torchvision_lacks()
    from streaming import StreamingDataset

    if not (folder / "mds").exists():
        write_mds(files_of(folder), folder / "mds")

    class Images(StreamingDataset):
        def __getitem__(self, number: int) -> Any:
            return torch.from_numpy(decode(super().__getitem__(number)["image"]))

    return mapped(Images(local=str(folder / "mds"), shuffle=True, batch_size=BATCH), workers, shuffle=False)


def define_what_torchvision_lacks() -> None:
    """A torchvision that was built for CUDA is not imported beside a torch without it, for want of two operators."""
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)


def mapped(data: Any, workers: int, shuffle: bool) -> Iterator[Tensor]:
    """Epoch after epoch."""
    loader = torch.utils.data.DataLoader(
        data, BATCH, shuffle=shuffle, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    while True:
        for pixels in loader:
            yield pixels.permute(0, 3, 1, 2)


WAYS = {"ours": ours, "memory": memory, "webdataset": webdataset, "database": database, "mosaicml": mosaicml}


def main() -> None:
    """Reads some batches, then takes the time of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--decoder", choices=DECODERS, default="pillow")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--images", type=int, default=1920)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batches = WAYS[options.way](options.folder, DECODERS[options.decoder], options.workers)
    for batch in islice(batches, WARM_UP):
        assert batch.shape == (BATCH, 3, SIDE, SIDE)
        assert batch.dtype is torch.uint8
    count, started = options.images // BATCH, time.perf_counter()
    for _ in islice(batches, count):
        pass
    print("seconds", (time.perf_counter() - started) / (count * BATCH), flush=True)


if __name__ == "__main__":
    main()
