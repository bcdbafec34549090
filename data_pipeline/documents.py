"""Versioned JSON documents: what the shard index and the manifest are kept in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from data_pipeline.atomic import atomically
from data_pipeline.remote.url import Url

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
T = TypeVar("T")
MOST = 2**42  # that anything in a shard is counted up to: sums over a million shards are whole numbers of 64 bits


class Document:
    """The fields of one JSON document, checked as they are taken; errors name the file and the field."""

    def __init__(self, path: Path | Url, fields: dict[str, Any]) -> None:
        self.path = path
        self.fields = fields

    @classmethod
    def read(cls, path: Path, kind: str, version: int) -> Document:
        """Read the document of the given kind and version.

        Raises:
            ValueError: not JSON, another kind of file, or another version.
        """
        return cls.parse(path, path.read_bytes(), kind, version)

    @classmethod
    def parse(cls, path: Path | Url, data: bytes, kind: str, version: int) -> Document:
        """The same of bytes that came from ``path``."""
        try:
            fields = json.loads(data)
        except ValueError as error:
            raise ValueError(f"{path} is not a {kind}: it is not JSON ({error})") from error
        except RecursionError as error:
            raise ValueError(f"{path} is not a {kind}: it is nested too deeply") from error
        if not isinstance(fields, dict) or fields.get("kind") != kind:
            raise ValueError(f"{path} is not a {kind}: its field 'kind' must be {kind!r}")
        if fields.get("version") != version:
            found = fields.get("version")
            raise ValueError(f"{path} is a {kind} of version {found!r}, this program reads version {version}")
        return cls(path, fields)

    def field(self, name: str, kind: type[T]) -> T:
        """The field ``name``, which must be of the type ``kind``.

        Raises:
            ValueError: the field is missing or of another type.
        """
        value = self.fields.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise ValueError(f"{self.path}: field {name!r} must be {kind.__name__}, got {value!r:.80}")
        return value

    def count(self, name: str) -> int:
        """The field ``name``, which must be a number of bytes or of samples.

        Raises:
            ValueError: the field is missing, no integer, negative, or beyond any shard.
        """
        value = self.field(name, int)
        if not 0 <= value <= MOST:
            raise ValueError(f"{self.path}: field {name!r} must be in [0, {MOST}], got {value!r:.80}")
        return value


def write_document(path: Path, kind: str, version: int, fields: dict[str, Any]) -> None:
    """Write a versioned document atomically."""
    with atomically(path) as file:
        file.write(document_bytes(kind, version, fields))


def document_bytes(kind: str, version: int, fields: dict[str, Any]) -> bytes:
    """A versioned document; the same fields give the same bytes."""
    text = json.dumps({"kind": kind, "version": version, **fields}, separators=(",", ":"))
    return text.encode() + b"\n"  # in ASCII, so that names of files that are no UTF-8 can be told too
