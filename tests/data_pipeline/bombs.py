"""Images that would cost far more than they weigh."""

from __future__ import annotations

import struct
import zlib


def huge_png(side: int = 60_000) -> bytes:
    """A whole gray PNG of side x side pixels, all black, a bit each: half a megabyte that unpacks to gigabytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    pixels = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
