"""safetensors files: written in one pass, read a stretch of elements at a time, each checked on its way."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from xxhash import xxh3_128_hexdigest

from trainer.shard import Shard

BLOCK = 1 << 18  # elements that one checksum covers: 1 MiB, still in the cache when it is checked
BYTES = 4  # of an element, which is always float32


@dataclass(frozen=True)
class Chunk:
    """Elements start .. start + count - 1 of a tensor, kept at byte `offset` of `file`.

    checksums: of each BLOCK of them; empty where the file is checked as a whole.
    """

    start: int
    count: int
    file: str
    offset: int
    checksums: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stretch:
    """Elements of a chunk, from number `start` of its own on, and the flat tensor that they are read into."""

    path: Path
    chunk: Chunk
    start: int
    into: Tensor


def write(path: Path, shards: Mapping[str, Shard]) -> tuple[dict[str, Chunk], dict[str, object]]:
    """Writes these shards, which lie in the host's memory, and waits until they are on the disk.

    Gives where each lies, and what is to be known of the file. Raises OSError naming the file.
    """
    header = header_of(shards)
    chunks, offset = {}, len(header)
    try:
        with path.open("xb") as file:
            file.write(header)
            for key, shard in shards.items():
                content = bytes_of(shard.tensor)
                file.write(content)
                pieces = range(0, len(content), BLOCK * BYTES)
                checksums = tuple(xxh3_128_hexdigest(content[each : each + BLOCK * BYTES]) for each in pieces)
                chunks[key] = Chunk(shard.start, shard.tensor.numel(), path.name, offset, checksums)
                offset += len(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"{path}: {error}") from error
    return chunks, {"bytes": offset, "header": xxh3_128_hexdigest(header)}


def header_of(shards: Mapping[str, Shard]) -> bytes:
    """What a safetensors file of these shards begins with. A stretch of a tensor is named key[start:stop]."""
    entries, offset = {}, 0
    for key, shard in shards.items():
        count = shard.tensor.numel()
        whole = count == math.prod(shard.shape)
        name, shape = (key, shard.shape) if whole else (f"{key}[{shard.start}:{shard.stop}]", (count,))
        span = [offset, offset + count * BYTES]
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a flat tensor of the host."""
    assert tensor.dtype == torch.float32, tensor.dtype
    return memoryview(tensor.numpy()).cast("B")


def wholes_in(path: Path) -> dict[str, tuple[tuple[int, ...], Chunk]]:
    """The shape and the place of each tensor of a safetensors file.

    Raises ValueError for what is no such file, is cut short, or holds another type than float32.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        try:
            if not 0 < length <= size - 8:
                raise ValueError(f"a header of {length} bytes does not fit")
            entries = json.loads(file.read(length))
            entries.pop("__metadata__", None)
            return {name: whole_at(path, entry, 8 + length, size) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no whole safetensors file of float32: {error}") from error


def whole_at(path: Path, entry: Mapping[str, object], base: int, size: int) -> tuple[tuple[int, ...], Chunk]:
    """One entry of a header whose numbers begin at byte `base`."""
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if entry["dtype"] != "F32":
        raise ValueError(f"a tensor is of the type {entry['dtype']}")
    if not 0 <= begin <= end <= size - base or end - begin != math.prod(shape) * BYTES:
        raise ValueError(f"a tensor of the shape {shape} cannot lie at {begin} to {end} of {size - base} bytes")
    return shape, Chunk(0, math.prod(shape), path.name, base + begin)


def read(stretches: list[Stretch]) -> None:
    """Reads each stretch into its tensor. Raises ValueError for the first file that is not what was written."""
    scratch = torch.empty(BLOCK)
    for _, of_one in groupby(stretches, key=lambda stretch: stretch.chunk.file):
        of_file = list(of_one)
        with of_file[0].path.open("rb", buffering=0) as file:
            for stretch in of_file:
                read_stretch(file, stretch, scratch)


def read_stretch(file: BinaryIO, stretch: Stretch, scratch: Tensor) -> None:
    """By blocks: straight into the tensor where all of a block is wanted on the host, else by way of `scratch`."""
    start, stop = stretch.start, stretch.start + stretch.into.numel()
    direct = stretch.into.device.type == "cpu"
    for number in range(start // BLOCK, -(-stop // BLOCK)):
        first, last = number * BLOCK, min((number + 1) * BLOCK, stretch.chunk.count)
        wanted = stretch.into[max(first, start) - start : min(last, stop) - start]
        if direct and len(wanted) == last - first:
            read_block(file, stretch.chunk, number, wanted)
        else:
            block = scratch[: last - first]
            read_block(file, stretch.chunk, number, block)
            wanted.copy_(block[max(first, start) - first : min(last, stop) - first])


def read_block(file: BinaryIO, chunk: Chunk, number: int, into: Tensor) -> None:
    """Block `number` of a chunk. Raises ValueError where it is cut short or its checksum is another."""
    view, begin, done = bytes_of(into), chunk.offset + number * BLOCK * BYTES, 0
    while done < len(view):
        got = os.preadv(file.fileno(), [view[done:]], begin + done)
        if not got:
            raise ValueError(f"{file.name} is cut short: it ends at byte {begin + done}")
        done += got
    if chunk.checksums and xxh3_128_hexdigest(view) != chunk.checksums[number]:
        raise ValueError(
            f"{file.name} was altered: bytes {begin} to {begin + len(view) - 1} have another checksum than the "
            "manifest states"
        )
