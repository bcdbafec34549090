"""Manifest: what a folder of shards holds and how it was prepared, in one small file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from data_pipeline.documents import Document, Json, write_document
from data_pipeline.remote.url import Url

KIND = "quasistatic manifest"
VERSION = 1
MANIFEST = "manifest.json"
Skipped: TypeAlias = tuple[str, str]  # the name of an image that cannot be packed, which may be another's too; why


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its file name, its number of samples, its length in bytes and its checksum."""

    name: str
    samples: int
    tar_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of a folder of shards; opening 10,000 shards reads this and no index.

    ``preparation`` is what the source says was done to the images, with its version: two folders with the
    same preparation hold the same samples, save for those that could not be packed: ``skipped`` names them, with
    the reason. ``resolution`` is in pixels, or None where images keep their own sizes. ``formats`` counts the
    images by extension.
    """

    source: str
    preparation: dict[str, Json]
    class_names: tuple[str, ...]
    channels: int
    resolution: int | None
    samples_per_shard: int
    shards: tuple[ShardEntry, ...] = ()
    formats: dict[str, int] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()

    @property
    def samples(self) -> int:
        """The number of samples in all shards together."""
        return sum(entry.samples for entry in self.shards)

    @property
    def tar_bytes(self) -> int:
        """The length of all shards together."""
        return sum(entry.tar_bytes for entry in self.shards)

    def differences(self, other: Manifest) -> list[str]:
        """What was prepared differently, field by field; the description of the source does not count."""
        here, there = self._comparable(), other._comparable()
        return [
            f"{name}: {here.get(name)!r} here, {there.get(name)!r} there"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]

    def write(self, path: Path) -> None:
        """Write the manifest atomically."""
        write_document(path, KIND, VERSION, asdict(self) | {"tar_bytes": self.tar_bytes})

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            ValueError: not a manifest of this version, or a field is missing or malformed.
        """
        return cls.of(Document.read(path, KIND, VERSION))

    @classmethod
    def parse(cls, url: Url, data: bytes) -> Manifest:
        """The manifest that these bytes from ``url`` are.

        Raises:
            ValueError: as ``read``.
        """
        return cls.of(Document.parse(url, data, KIND, VERSION))

    @classmethod
    def of(cls, document: Document) -> Manifest:
        """The manifest that a document holds."""
        resolution = document.fields.get("resolution")
        return cls(
            source=document.field("source", str),
            preparation=document.field("preparation", dict),
            class_names=tuple(map(str, document.field("class_names", list))),
            channels=document.field("channels", int),
            resolution=None if resolution is None else document.field("resolution", int),
            samples_per_shard=document.field("samples_per_shard", int),
            shards=tuple(_entry(document.path, fields) for fields in document.field("shards", list)),
            # Absent from manifests that were written before there were these.
            formats=document.field("formats", dict) if "formats" in document.fields else {},
            skipped=skipped_pairs(document) if "skipped" in document.fields else (),
        )

    def _comparable(self) -> dict[str, Any]:
        fields = asdict(replace(self, source="", shards=(), formats={}, skipped=()))
        preparation = fields.pop("preparation")
        return fields | {f"preparation.{name}": value for name, value in preparation.items()}


def skipped_pairs(document: Document) -> tuple[Skipped, ...]:
    """The names and reasons of what was skipped, as a list of pairs."""
    pairs = document.field("skipped", list)
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError(f"{document.path}: field 'skipped' must hold pairs of texts, got {pair!r:.80}")
    return tuple((name, reason) for name, reason in pairs)


def _entry(path: Path | Url, fields: Any) -> ShardEntry:
    document = Document(path, fields if isinstance(fields, dict) else {})
    name = document.field("name", str)
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{path}: a shard's name must be a plain file name, got {name!r}")
    samples, tar_bytes = document.count("samples"), document.count("tar_bytes")
    return ShardEntry(name, samples, tar_bytes, document.field("sha256", str))
