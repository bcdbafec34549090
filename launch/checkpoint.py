"""python -m launch.checkpoint run.directory=DIR action=list|verify|describe: what a run's checkpoints hold."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door

if TYPE_CHECKING:
    from trainer.checkpoints.manifest import Manifest

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="checkpoint")
@door
def main(config: DictConfig) -> int:
    """Lists, verifies or describes; status 1 where a file is not what was written."""
    from configs.runs import to_value
    from trainer.checkpoints.listing import Listing

    chosen = to_value(config)
    listing = Listing(Path(chosen.run.directory) / "checkpoints")
    of_all = chosen.action.name != "describe" and not chosen.checkpoint
    directories = listing.all() if of_all else []
    found = directories or [listing.at(chosen.checkpoint)]
    return {"list": show, "verify": verify, "describe": describe}[chosen.action.name](found)


def show(checkpoints: list[Path]) -> int:
    """A line for each: images, size, what saved it, age."""
    from trainer.checkpoints.manifest import Manifest

    print(f"{'images':>12}  {'size':>10}  {'engine':<12} {'ranks':>5}  age")
    status = 0
    for checkpoint in checkpoints:
        try:
            manifest = Manifest.read(checkpoint)
        except ValueError as error:
            print(f"{int(checkpoint.name):>12}  {error}")
            status = 1
            continue
        engine, ranks = manifest.about.get("engine", "local"), manifest.about.get("ranks", 1)
        size, age = f"{manifest.bytes / 1e6:.1f} MB", aged(time.time() - checkpoint.stat().st_mtime)
        print(f"{manifest.images:>12}  {size:>10}  {engine:<12} {ranks:>5}  {age}")
    return status


def aged(seconds: float) -> str:
    """As a person would say it."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def verify(checkpoints: list[Path]) -> int:
    """Reads every byte; names every file that is not what was written."""
    from trainer.checkpoints.manifest import Manifest
    from trainer.checkpoints.verification import faults

    bad = 0
    for checkpoint in checkpoints:
        try:
            found = faults(Manifest.read(checkpoint))
        except ValueError as error:
            found = [str(error)]
        print(*(found or [f"{checkpoint}: whole"]), sep="\n")
        bad += bool(found)
    return int(bad > 0)


def describe(checkpoints: list[Path]) -> int:
    """The last line is one JSON object."""
    from trainer.checkpoints.manifest import Manifest

    for checkpoint in checkpoints:
        print(json.dumps(described(Manifest.read(checkpoint))))
    return 0


def described(manifest: Manifest) -> dict[str, object]:
    """What a checkpoint holds, and in which choices its run has changed since."""
    from configs.runs import changes
    from trainer.checkpoints.average import half_lives

    kinds = {kind: sum(saved.count for saved in named.values()) for kind, named in manifest.kinds.items()}
    kept, now = manifest.about.get("config", ""), manifest.directory.parents[1] / "config.yaml"
    return {
        "checkpoint": str(manifest.directory),
        "images": manifest.images,
        "cursor": manifest.cursor,
        "parameters": kinds.get("parameters", 0),
        "kinds": kinds,
        "half_lives": half_lives(manifest),
        "files": len(manifest.files),
        "bytes": manifest.bytes,
        **{name: manifest.about[name] for name in ("engine", "ranks", "versions") if name in manifest.about},
        "config_changes": changes(str(kept), now.read_text()) if kept and now.exists() else [],
    }


if __name__ == "__main__":
    main()
