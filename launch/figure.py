"""python -m launch.figure NAME run.directory=DIR: a figure of the papers, as a PNG and in TensorBoard."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from configs.doors import FigureConfig
from configs.figures import FIGURES, register_figures
from launch.door import door

register_figures()


@hydra.main(version_base="1.3", config_path="../configs", config_name="figure")
@door
def main(config: DictConfig) -> int:
    """Draws the figure and says where it is."""
    from configs.runs import to_value

    path = draw(to_value(config))
    print(f"{path}, and its numbers in {path.with_suffix('.npz')}")
    return 0


def draw(chosen: FigureConfig) -> Path:
    """Draws it into the run's figures/ and its TensorBoard. Raises ValueError for a run that cannot show it."""
    from torch.utils.tensorboard import SummaryWriter

    from launch.restored import Averaged
    from trainer.figures.figure import read_png
    from trainer.figures.style import styled
    from trainer.figures.subject import Subject

    of = Averaged.of(chosen)
    chosen.figure.check(of.run)
    name = next(name for name, kind in FIGURES.items() if kind is type(chosen.figure))
    path = of.run.directory / "figures" / f"{name}-{of.checkpoint.name}.png"
    provenance = {"figure": repr(chosen.figure), "ema_half_life": of.half_life, "seed": chosen.seed}
    with styled():
        drawing = chosen.figure.draw(Subject(of.run, of.diffusion, of.device, chosen.seed, chosen.batch))
        drawing.keep(path, json.dumps(provenance))
    with SummaryWriter(str(of.run.directory), filename_suffix=".figures") as writer:
        writer.add_image(f"figures/{name}", read_png(path), int(of.checkpoint.name), dataformats="HWC")
    return path


def named(arguments: list[str]) -> list[str]:
    """The arguments in Hydra's own words: a bare name in front is the figure's."""
    first, *rest = arguments or [""]
    return [f"figure={first}", *rest] if first.replace("_", "").isalnum() else arguments


if __name__ == "__main__":
    sys.argv[1:] = named(sys.argv[1:])
    main()
