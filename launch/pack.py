"""python -m launch.pack source=… out=…: images into indexed WebDataset shards; the same command again resumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door

if TYPE_CHECKING:
    from configs.doors import PackConfig
    from data_pipeline.sources import Source

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="pack")
@door
def main(config: DictConfig) -> int:
    """Packs each part of the source and says what lies where."""
    from tqdm import tqdm

    from configs.runs import to_value
    from data_pipeline.write import write_shards

    chosen = to_value(config)
    for name, source in sources(chosen).items():
        out = Path(chosen.out) / name
        with tqdm(total=len(source), desc=str(out), unit="img", disable=None) as bar:
            packing = write_shards(
                source,
                out,
                samples_per_shard=chosen.samples_per_shard,
                progress=lambda done, total, bar=bar: bar.update(done - bar.n),
            )
        print(f"{out}: {packing.manifest.samples} images in {len(packing.manifest.shards)} shards", end="")
        print(f" ({packing.written} written, {packing.kept} were there)")
    return 0


COMMON = ("source", "out", "samples_per_shard")
# The options that each source takes besides; another one that is given is a mistake.
OPTIONS = {
    "digits": (),
    "photographs": ("resolution", "count", "seed"),
    "folder": ("path", "resolution", "channels"),
    "mnist": ("path",),
    "cifar10": ("path",),
}


def sources(chosen: PackConfig) -> dict[str, Source]:
    """The parts to pack, by the subfolder that each goes to; a source without splits goes to `out` itself."""
    from data_pipeline.cifar import Cifar10
    from data_pipeline.folder import Folder
    from data_pipeline.idx import Mnist
    from data_pipeline.sources import Digits, Photographs

    name = chosen.source.name
    options = {key: value for key, value in vars(chosen).items() if key not in COMMON and value is not None}
    unused = sorted(options.keys() - set(OPTIONS[name]))
    if unused:
        raise ValueError(
            f"source={name} takes no {unused[0]}; it takes {', '.join(OPTIONS[name]) or 'no options'}"
        )
    if name == "digits":
        return {"train": Digits("train"), "test": Digits("test")}
    if name == "photographs":
        count = options.pop("count", 10_000)
        options.setdefault("resolution", 32)
        parts = {"train": count, "test": max(1, count // 10)}
        return {split: Photographs(size, split=split, **options) for split, size in parts.items()}
    if "path" not in options:
        raise ValueError(f"source={name} needs path=…, where its files lie")
    path = Path(options.pop("path"))
    if name == "folder":
        return {"": Folder(path, **options)}
    original = {"mnist": Mnist, "cifar10": Cifar10}[name]
    return {split: original(path, split) for split in ("train", "test")}


if __name__ == "__main__":
    main()
