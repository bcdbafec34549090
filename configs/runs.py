"""Between Hydra's configuration and the trainer's `Run`, and the config.yaml that a run directory keeps."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.schema import GROUPS, PLACES, open_part, open_run
from trainer.run import Run

# What may change between a run and its resumption: how long, how often and how fast, but not what is computed.
FREE = (
    "run.images",
    "run.save_every",
    "run.keep",
    "run.log_every",
    "data.workers",
    "data.prefetch",
    "sampler",
    "choices.sampler",
    "preview",
    "choices.preview.sampler",
    "engine.checkpoint_activations",
)


def to_value(config: DictConfig) -> Any:
    """The dataclass that a configuration describes. Raises ValueError for a missing or impossible field."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]} must be given: add {missing[0]}=… to the command")
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        # OmegaConf wraps what __post_init__ says; the user wants that, not the wrapping.
        raise ValueError(str(error.__cause__ or error)) from error


def keep_config(config: DictConfig, run: Run) -> None:
    """Writes config.yaml into a new run directory; in an old one, raises ValueError for what differs from it."""
    path = run.directory / "config.yaml"
    document = {"choices": choices(run), **cast(dict[str, object], OmegaConf.to_container(config, resolve=True))}
    document = cast(dict[str, object], OmegaConf.to_container(OmegaConf.create(document), enum_to_str=True))
    if path.exists():
        differing = differences(flat(read_config(path)), flat(document))
        if differing:
            raise ValueError(
                f"{run.directory} is the directory of another run, which differs in {'; '.join(differing)}. "
                "Give the old values, or another run.directory"
            )
    run.directory.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(OmegaConf.to_yaml(document))
    partial.replace(path)


def load_run(directory: Path) -> Run:
    """The run that a directory holds. Raises ValueError where there is none."""
    path = directory / "config.yaml"
    if not path.exists():
        raise ValueError(f"run.directory={directory} holds no run: there is no {path}")
    document = read_config(path)
    chosen = cast(dict[str, str], document.pop("choices"))
    config = open_run()
    for place, name in chosen.items():
        OmegaConf.update(config, place, open_part(PLACES[place], name))
    return cast(Run, to_value(cast(DictConfig, OmegaConf.merge(config, document))))


def read_config(path: Path) -> dict[str, object]:
    """A kept config.yaml as plain values."""
    document = cast(dict[str, object], OmegaConf.to_container(OmegaConf.load(path)))
    # A run from before these were chosen had the one kind there was.
    document["choices"] = {"data": "shards", "process": "gaussian", **cast(dict[str, str], document["choices"])}
    return document


def choices(run: Run) -> dict[str, str]:
    """Which variant of each part a run is made of: place → name."""
    chosen = {}
    for place, group in PLACES.items():
        part = reduce(getattr, place.split("."), run)
        chosen[place] = next(name for name, node in GROUPS[group].items() if node is type(part))
    return chosen


def flat(document: object, prefix: str = "") -> dict[str, object]:
    """Nested values by dotted path, without those that may change on resumption."""
    if prefix in FREE:
        return {}
    if not isinstance(document, dict):
        return {prefix: document}
    below = [flat(value, f"{prefix}.{key}" if prefix else key) for key, value in document.items()]
    return {path: value for values in below for path, value in values.items()}


def differences(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """Each field that has another value, as a person would say it."""
    fields = sorted(old.keys() | new.keys())
    return [
        f"{name}: {old.get(name)} there, {new.get(name)} here" for name in fields if old.get(name) != new.get(name)
    ]
