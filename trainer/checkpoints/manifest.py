"""The manifest of a checkpoint: where the run stood, and in which file every element of every tensor lies."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from xxhash import xxh3_128_hexdigest

from trainer.checkpoints.first_format import first_format
from trainer.checkpoints.tensor_file import BLOCK, BYTES, Chunk, wholes_in

FORMAT = 2
NAME = "manifest.json"
PLACE = {"images": int, "cursor": int, "data": str, "files": dict}


@dataclass(frozen=True)
class Saved:
    """A tensor as it was saved: its shape, and the chunks that make up its elements, in their order."""

    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def count(self) -> int:
        """Of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Manifest:
    """kinds: kind → name → tensor. files: what is known of each, its size and a checksum of its header or of all.

    images, cursor, data: as in TrainState. about: what is told, but not needed to load: config, versions, engine.
    """

    directory: Path
    images: int
    cursor: int
    data: str
    files: Mapping[str, Mapping[str, object]]
    kinds: Mapping[str, Mapping[str, Saved]]
    about: Mapping[str, object]

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Raises ValueError where it is missing, damaged or of a format that this version does not know."""
        path = directory / NAME
        try:
            document = json.loads(path.read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{directory} is no whole checkpoint: {NAME}: {error}") from error
        if not isinstance(document, dict) or document.get("format") not in (1, FORMAT):
            raise ValueError(f"{path} is no manifest of format 1 or {FORMAT}, the ones that this version reads")
        if document["format"] == FORMAT and document.pop("checksum", None) != checksum(document):
            raise ValueError(f"{path} is damaged: it has another checksum than it states")
        for field, kind in PLACE.items():
            if not isinstance(document.get(field), kind):
                raise ValueError(
                    f"{path}: {field} must be of the type {kind.__name__}, got {document.get(field)!r}"
                )
        try:
            found = cls.of_document(directory, document)
            found.check()
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{path} is damaged: {error!r}") from error
        return found

    @classmethod
    def of_document(cls, directory: Path, document: dict[str, object]) -> Manifest:
        """The manifest that a JSON document is."""
        place = (document.pop(field) for field in PLACE)
        images, cursor, data, files = place
        if document.pop("format") == 1:
            tensors = first_format(directory, files)
        else:
            tensors = {
                kind: {name: of_plain(entry, list(files)) for name, entry in named.items()}
                for kind, named in document.pop("tensors").items()
            }
        kinds = {kind: {name: Saved(*each) for name, each in named.items()} for kind, named in tensors.items()}
        return cls(directory, images, cursor, data, files, kinds, document)

    @classmethod
    def of_file(cls, path: Path) -> Manifest:
        """What a single safetensors file of plain names would have: one kind, weights, that begins a run."""
        named = {name: Saved(shape, (chunk,)) for name, (shape, chunk) in wholes_in(path).items()}
        return cls(path.parent, 0, 0, "", {path.name: {"bytes": path.stat().st_size}}, {"weights": named}, {})

    def text(self) -> str:
        """The JSON document, with its own checksum."""
        numbers = {name: number for number, name in enumerate(self.files)}
        tensors = {
            kind: {name: to_plain(saved, numbers) for name, saved in named.items()}
            for kind, named in self.kinds.items()
        }
        place = {field: getattr(self, field) for field in PLACE}
        document = {"format": FORMAT, **place, **self.about, "tensors": tensors}
        return json.dumps({**document, "checksum": checksum(document)}) + "\n"

    def check(self) -> None:
        """Raises ValueError where its chunks are not all of each tensor, or not within its files."""
        for kind, named in self.kinds.items():
            for name, saved in named.items():
                stop = 0
                for chunk in saved.chunks:
                    end = chunk.offset + chunk.count * BYTES
                    if chunk.start != stop or not 0 <= chunk.offset <= end <= self.files[chunk.file]["bytes"]:
                        raise ValueError(f"{self.path} is damaged: {kind} {name!r} cannot lie in {chunk}")
                    if chunk.checksums and len(chunk.checksums) != -(-chunk.count // BLOCK):
                        raise ValueError(f"{self.path} is damaged: checksums of {kind} {name!r} are missing")
                    stop += chunk.count
                if stop != saved.count:
                    raise ValueError(f"{self.path} is damaged: it lists {stop} elements of {kind} {name!r}")
        strangers = [name for name in self.files if Path(name).name != name]
        if strangers:
            raise ValueError(f"{self.path} is damaged: {strangers[0]!r} is no file of the checkpoint")

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.directory / NAME

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(facts["bytes"] for facts in self.files.values())

    def of_kind(self, kind: str) -> Mapping[str, Saved]:
        """The tensors of a kind. Raises ValueError where it is not there."""
        if kind in self.kinds:
            return self.kinds[kind]
        file = f"{kind}.safetensors"  # of the first format
        if file in self.files:
            raise ValueError(f"{self.directory / file} is missing; the manifest lists it")
        raise ValueError(f"{self.path} lists no {kind}")

    def items(self) -> Iterator[tuple[str, Saved]]:
        """Every tensor under kind/name."""
        for kind, named in self.kinds.items():
            for name, saved in named.items():
                yield f"{kind}/{name}", saved


def checksum(document: Mapping[str, object]) -> str:
    """Of a JSON document, whatever its layout."""
    return xxh3_128_hexdigest(json.dumps(document).encode())


def to_plain(saved: Saved, numbers: Mapping[str, int]) -> dict[str, object]:
    """As it stands in JSON: of each chunk start, count, number of the file, offset and checksums."""
    chunks = [[each.start, each.count, numbers[each.file], each.offset, each.checksums] for each in saved.chunks]
    return {"shape": saved.shape, "chunks": chunks}


def of_plain(entry: Mapping[str, object], files: list[str]) -> tuple[tuple[int, ...], tuple[Chunk, ...]]:
    """The shape and the chunks of a tensor, of what stands in JSON."""
    chunks = tuple(
        Chunk(start, count, files[file], offset, tuple(checksums))
        for start, count, file, offset, checksums in entry["chunks"]
    )
    return tuple(entry["shape"]), chunks
