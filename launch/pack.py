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


def sources(chosen: PackConfig) -> dict[str, Source]:
    """The parts to pack, by the subfolder that each goes to; a source without splits goes to `out` itself."""
    from configs.doors import Source as Choice
    from data_pipeline.folder import Folder
    from data_pipeline.sources import Digits, Photographs

    if chosen.source is Choice.digits:
        return {"train": Digits("train"), "test": Digits("test")}
    if chosen.source is Choice.photographs:
        resolution, count = chosen.resolution or 32, chosen.count
        held_out = max(1, count // 10)
        return {
            "train": Photographs(count, resolution, "train", chosen.seed),
            "test": Photographs(held_out, resolution, "test", chosen.seed),
        }
    if not chosen.path:
        raise ValueError("source=folder needs path=…, the folder of images")
    return {"": Folder(Path(chosen.path), chosen.resolution or None, chosen.channels)}


if __name__ == "__main__":
    main()
