"""Which source the packing door takes, by its name and its options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configs.packing import PackConfig
    from data_pipeline.sources import Source

PREPARED = ("path", "resolution", "channels", "format", "quality", "check", "max_images", "shuffle")
# The options that each source takes; another one that is given is a mistake.
OPTIONS = {
    "digits": (),
    "photographs": ("resolution", "count", "seed"),
    "folder": PREPARED,
    "mnist": ("path",),
    "cifar10": ("path",),
    "lsun": PREPARED,
    "tar": (*PREPARED, "drop"),
    "huggingface": PREPARED,
}
UNITS = {"tar": "tar"}  # that are read as a source is opened; of the others, keys
ANY = {option for options in OPTIONS.values() for option in options}


def sources(chosen: PackConfig, progress: Callable[[int, int], None]) -> dict[str, Source]:
    """The parts to pack, by the subfolder that each goes to; a source without splits goes to `out` itself.

    progress: called with (keys or tars read, and in all) while a large source is opened.
    """
    from data_pipeline.sources import Shuffled

    if chosen.source is None:
        raise ValueError(f"source must be given: add source=… to the command, one of {', '.join(OPTIONS)}")
    name = chosen.source.name
    options = {key: value for key, value in vars(chosen).items() if key in ANY and value is not None}
    unused = sorted(options.keys() - set(OPTIONS[name]))
    if unused:
        raise ValueError(
            f"source={name} takes no {unused[0]}; it takes {', '.join(OPTIONS[name]) or 'no options'}"
        )
    if name in ("digits", "photographs"):
        return at_hand(name, options)
    if "path" not in options:
        raise ValueError(f"source={name} needs path=…, where its files lie")
    path = options.pop("path")
    if name in ("mnist", "cifar10"):
        return original(name, Path(path))
    seed = options.pop("shuffle", None)
    parts = prepared(name, path, options, progress)
    return parts if seed is None else {part: Shuffled(source, seed) for part, source in parts.items()}


def at_hand(name: str, options: dict[str, Any]) -> dict[str, Source]:
    """Those with real images that are installed with the system."""
    from data_pipeline.sources import Digits, Photographs

    if name == "digits":
        return {"train": Digits("train"), "test": Digits("test")}
    count = options.pop("count", 10_000)
    options.setdefault("resolution", 32)
    parts = {"train": count, "test": max(1, count // 10)}
    return {split: Photographs(size, split=split, **options) for split, size in parts.items()}


def original(name: str, path: Path) -> dict[str, Source]:
    """Those from their original files, in their own splits."""
    from data_pipeline.cifar import Cifar10
    from data_pipeline.idx import Mnist

    source = {"mnist": Mnist, "cifar10": Cifar10}[name]
    return {split: source(path, split) for split in ("train", "test")}


def prepared(
    name: str, path: str, options: dict[str, Any], progress: Callable[[int, int], None]
) -> dict[str, Source]:
    """Those whose images pass through or are prepared as they are packed."""
    from data_pipeline.folder import Folder
    from data_pipeline.hub import Hub, splits
    from data_pipeline.lsun import Lsun
    from data_pipeline.preparation import Check, Preparation
    from data_pipeline.tars import Tars

    own = {key: options.pop(key) for key in ("max_images", "drop") if key in options}
    if "resolution" not in options:
        options.setdefault("check", Check.decode if name == "folder" else Check.header)
    preparation = Preparation(**options)
    if name == "folder":
        return {"": Folder(Path(path), preparation, **own)}
    if name == "lsun":
        return {"": Lsun(Path(path), preparation, progress=progress, **own)}
    if name == "tar":
        return {"": Tars(path, preparation, progress=progress, **own)}
    return {split: Hub(path, split, preparation, **own) for split in splits(path) or [""]}
