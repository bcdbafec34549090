"""python -m launch.decompress run.directory=DIR file=FILE out=DIR: the images in a file of launch.compress."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="decompress")
@door
def main(config: DictConfig) -> int:
    """Writes a file for each image and a grid of the first ones."""
    from tqdm import tqdm

    from configs.doors import RestoreConfig
    from configs.runs import to_value
    from launch.restored import Averaged
    from trainer.codec import Codec
    from trainer.compressed import Compressed, decompress
    from trainer.grid import grid, write_png

    chosen = to_value(config)
    file = Compressed.read(Path(chosen.file), chosen.partial)
    header = file.header
    of = Averaged.of(RestoreConfig(chosen.run, header.checkpoint, header.half_life))
    file.check(of.run, of.checkpoint)
    codec = Codec(of.diffusion, of.device, header.steps, header.power, header.batch, header.clip, header.seed)
    with tqdm(total=header.sent, desc="receiving", unit="step", disable=None) as bar:
        images, t = decompress(file, codec, lambda step: bar.update())
    out = Path(chosen.out)
    for number, image in enumerate(images):
        write_png(out / f"{number:06d}.png", image)
    write_png(out / "grid.png", grid(images[:256]))
    what = "without loss" if t == 0 else f"as x̂_0 at t = {t}"
    print(f"{len(images)} images {what} in {out}; the grid is {out / 'grid.png'}")
    return 0


if __name__ == "__main__":
    main()
