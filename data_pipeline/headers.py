"""Headers: the size of a PNG or WebP image by its first bytes, before anything is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass

PNG = b"\x89PNG\r\n\x1a\n"
_PNG_START = struct.Struct(">8sI4sIIBBxxB")  # signature, length and name of IHDR, width, height, depth, kind, rows
_WEBP_START = struct.Struct(
    "<4sI4s4sI10s"
)  # RIFF, its length, WEBP, name and length of the first chunk, its start
_CHUNK = struct.Struct(">I4s")


@dataclass(frozen=True)
class Header:
    """What an image says of itself. plain: one frame of at most 8 bits per channel, its rows in their order.

    gray: without colour, palette or transparency.
    """

    width: int
    height: int
    plain: bool
    gray: bool = False


def png_header(data: bytes) -> Header | None:
    """The header of a PNG, or None of what does not begin as one."""
    if len(data) < _PNG_START.size:
        return None
    signature, _, name, width, height, depth, kind, interlaced = _PNG_START.unpack_from(data)
    if signature != PNG or name != b"IHDR":
        return None
    names = _names_before_pixels(data)
    plain = depth <= 8 and not interlaced and b"acTL" not in names  # the chunk of an animation
    return Header(width, height, plain, gray=kind == 0 and b"tRNS" not in names)


def _names_before_pixels(data: bytes) -> set[bytes]:
    place, names = len(PNG), set[bytes]()
    while place + _CHUNK.size <= len(data):
        length, name = _CHUNK.unpack_from(data, place)
        if name == b"IDAT":
            break
        names.add(name)
        place += length + 12  # its length, its name and its checksum
    return names


def webp_header(data: bytes) -> Header | None:
    """The header of a WebP, or None of what does not begin as one (RFC 9649, sections 2.5 to 2.7)."""
    if len(data) < _WEBP_START.size:
        return None
    riff, _, webp, name, _, start = _WEBP_START.unpack_from(data)
    if riff != b"RIFF" or webp != b"WEBP":
        return None
    if name == b"VP8X":  # one byte of flags, three reserved, width - 1 and height - 1 in three bytes each
        width, height = (int.from_bytes(start[i : i + 3], "little") + 1 for i in (4, 7))
        return Header(width, height, plain=not start[0] & 2)
    if name == b"VP8L" and start[0] == 0x2F:  # width - 1 and height - 1 in 14 bits each
        bits = int.from_bytes(start[1:5], "little")
        return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, plain=True)
    if name == b"VP8 " and start[3:6] == b"\x9d\x01\x2a":  # width and height in 14 bits each, below two of scale
        width, height = (int.from_bytes(start[i : i + 2], "little") & 0x3FFF for i in (6, 8))
        return Header(width, height, plain=True)
    return None
