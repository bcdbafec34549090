"""The file that images are compressed into: a header, then the range coder's bytes."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import ClassVar

from jaxtyping import UInt8
from torch import Tensor

from data_pipeline.atomic import atomically
from models.block_code import BlockCode
from models.range_coder import RangeReader, RangeWriter
from trainer.checkpoints.average import identity
from trainer.codec import Codec, Step, Transmission
from trainer.run import Run

MAGIC = b"QSPC\x01"  # the last byte is the format's version
CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True)
class Header:
    """All that a reader must know besides the run.

    checkpoint, half_life: the average of the run that was used. fingerprint: of those weights, and of all of the
    run's choices that the numbers depend on. seed: of the shared randomness. steps: of the chain, with that of the
    pixels, and the power of their times. sent: of those steps, in this file. batch: how many images went through
    the network at once. clip: of x̂_0. count, channels, height, width: of the images. pixels: checksum of the
    images as the writer decodes them. length, checksum: of the bytes that follow.
    """

    checkpoint: int
    half_life: float
    fingerprint: bytes
    seed: int
    steps: int
    power: float
    sent: int
    batch: int
    clip: bool
    count: int
    channels: int
    height: int
    width: int
    pixels: int
    length: int
    checksum: int
    layout: ClassVar[struct.Struct] = struct.Struct("<Qd8sQHdHH?IBHHIII")

    def pack(self) -> bytes:
        """The header as it stands in the file, with its own checksum."""
        whole = MAGIC + self.layout.pack(*astuple(self))
        return whole + CHECKSUM.pack(zlib.crc32(whole))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.channels, self.height, self.width


HEADER = len(MAGIC) + Header.layout.size + CHECKSUM.size


@dataclass(frozen=True)
class Compressed:
    """A compressed file's content. `payload` may be cut short."""

    header: Header
    payload: bytes

    @property
    def whole(self) -> bool:
        """Is all of it there?"""
        return len(self.payload) == self.header.length

    def write(self, path: Path) -> None:
        """Writes the file, wholly or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomically(path) as file:
            file.write(self.header.pack() + self.payload)

    @classmethod
    def read(cls, path: Path, partial: bool = False) -> Compressed:
        """Raises ValueError for what is no such file, is damaged, or is cut short and is not allowed to be."""
        data = path.read_bytes()
        if data[: len(MAGIC)] != MAGIC:
            raise ValueError(f"{path} is no compressed file of this version: it does not begin with {MAGIC!r}")
        head, payload = data[:HEADER], data[HEADER:]
        if len(head) < HEADER:
            raise ValueError(f"{path} is cut short within its header: {len(head)} of {HEADER} bytes")
        if CHECKSUM.unpack(head[-CHECKSUM.size :])[0] != zlib.crc32(head[: -CHECKSUM.size]):
            raise ValueError(f"{path} is damaged: its header has another checksum than it states")
        header = Header(*Header.layout.unpack(head[len(MAGIC) : -CHECKSUM.size]))
        if len(payload) > header.length or (
            len(payload) == header.length and zlib.crc32(payload) != header.checksum
        ):
            raise ValueError(f"{path} is damaged: its content is not what its header states")
        if len(payload) < header.length and not partial:
            raise ValueError(
                f"{path} is cut short: {len(data)} of {HEADER + header.length} bytes; partial=true decodes the "
                "steps that are there"
            )
        return cls(header, payload)

    def check(self, run: Run, checkpoint: Path) -> None:
        """Raises ValueError unless these weights are the writer's."""
        if self.header.fingerprint != fingerprint(run, checkpoint, self.header.half_life):
            raise ValueError(
                f"the file was compressed with other weights or choices than {checkpoint} has: give the "
                "run.directory of the run that it was compressed with"
            )


def fingerprint(run: Run, checkpoint: Path, half_life: float) -> bytes:
    """8 bytes that tell one averaged model from another: of its weights, and of the choices that it depends on."""
    choices = (run.process, run.parameterization, run.network, run.engine.precision, run.shape)
    told = repr((choices, identity(checkpoint, half_life)))
    return hashlib.sha256(told.encode()).digest()[:8]


def compress(
    run: Run,
    checkpoint: Path,
    half_life: float,
    codec: Codec,
    images: UInt8[Tensor, "N C H W"],
    send: int = 0,
    code: BlockCode | None = None,
    progress: Callable[[Step], object] = lambda step: None,
) -> tuple[Compressed, Transmission]:
    """A file of these images, and what its sender knows of it. send: how many of the codec's steps, 0 for all."""
    steps = len(codec.times()) - 1
    if send > steps:
        raise ValueError(
            f"send must be at most {steps}, the steps of the chain with that of the pixels, got {send}"
        )
    count, *shape = images.shape
    writer, begun = RangeWriter(), codec.begin(count, tuple(shape))
    sent = codec.transmit(writer, begun, send or steps, images, code, progress)
    payload = writer.finish()
    header = Header(
        checkpoint=int(checkpoint.name),
        half_life=half_life,
        fingerprint=fingerprint(run, checkpoint, half_life),
        seed=codec.seed,
        steps=steps,
        power=codec.power,
        sent=send or steps,
        batch=codec.batch,
        clip=codec.clip,
        count=count,
        channels=shape[0],
        height=shape[1],
        width=shape[2],
        pixels=checksum(codec.shown(sent)),
        length=len(payload),
        checksum=zlib.crc32(payload),
    )
    return Compressed(header, payload), sent


def decompress(
    file: Compressed, codec: Codec, progress: Callable[[Step], object] = lambda step: None
) -> tuple[UInt8[Tensor, "N C H W"], int]:
    """The images, and the time that their steps have come to: 0 is without loss.

    Raises ValueError where a whole file does not decode to what its writer saw.
    """
    header = file.header
    reader = RangeReader(file.payload, file.whole)
    received = codec.transmit(reader, codec.begin(header.count, header.shape), header.sent, progress=progress)
    images = codec.shown(received)
    if file.whole and checksum(images) != header.pixels:
        raise ValueError(
            "the file decodes to other images than its writer saw: the network's numbers differ in their last "
            "bits; decompress on the kind of device, with the version of torch and the number of threads that "
            "wrote it"
        )
    return images, received.t


def checksum(images: UInt8[Tensor, "N C H W"]) -> int:
    """Of the images' bytes."""
    return zlib.crc32(images.numpy().tobytes())
