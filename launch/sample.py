"""python -m launch.sample run.directory=DIR count=N: images from a run's averaged weights, one file each.

Samples of drawn data go into one file, samples.npy, and the first ones into a picture.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import hydra
from omegaconf import DictConfig

from configs.schema import register
from data_pipeline.atomic import atomically
from launch.door import door

SHOWN = 256  # at most so many images make the grid

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="sample")
@door
def main(config: DictConfig) -> int:
    """Draws the images, writes a file for each and a grid of the first ones; other samples as one array."""
    import numpy as np
    import torch

    from configs.runs import to_value
    from launch.restored import Restored
    from models.classes import Cycle
    from trainer.grid import grid, write_png
    from trainer.picture import picture

    chosen = to_value(config)
    restored = Restored.of(chosen)
    classes = asked(chosen.classes, restored.run.network.known_classes)
    if classes:
        restored = restored.of_classes(Cycle(classes))
    out = Path(chosen.out or restored.run.directory / "samples" / restored.checkpoint.name)
    claim(out, restored.provenance())
    if not restored.run.data.pixels:
        samples = torch.cat(list(restored.samples(chosen.start, chosen.count, chosen.batch)))
        np.save(out / "samples.npy", samples.numpy())
        write_png(out / "picture.png", picture(samples[:SHOWN], restored.run.pixels))
        print(f"{chosen.count} samples of {restored.checkpoint} in {out / 'samples.npy'}, one row each")
        return 0
    images = chain.from_iterable(restored.batches(chosen.start, chosen.count, chosen.batch))
    shown = []
    for number, image in enumerate(images, start=chosen.start):
        write_png(out / f"{number:06d}.png", image)
        if len(shown) < SHOWN:
            shown.append(image)
    write_png(out / "grid.png", grid(torch.stack(shown), rows=len(classes)))
    print(f"{chosen.count} images of {restored.checkpoint} in {out}; the grid is {out / 'grid.png'}")
    return 0


def asked(classes: list[int] | str, known: int) -> tuple[int, ...]:
    """The classes to draw of `known` ones. Raises ValueError for one that is not among them."""
    numbers = range(known) if isinstance(classes, str) else classes
    for number in numbers:
        if not 0 <= number < known:
            there = f"0 .. {known - 1}" if known else "none (network.classes=0)"
            raise ValueError(f"classes must be of those that the run knows, {there}, got {number}")
    return tuple(numbers)


def claim(out: Path, provenance: dict[str, object]) -> None:
    """Notes in the folder what its images are of. Raises ValueError where it holds images of something else."""
    note = out / "provenance.json"
    there = json.loads(note.read_text()) if note.exists() else provenance
    for name, value in provenance.items():
        if there.get(name) != value:
            raise ValueError(f"{out} holds images of another {name}: {there.get(name)}, not {value}; give out=…")
    out.mkdir(parents=True, exist_ok=True)
    with atomically(note) as file:
        file.write(json.dumps(provenance, indent=2).encode())


if __name__ == "__main__":
    main()
