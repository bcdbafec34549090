"""Between Hydra's configuration and the trainer's `Run`, and the config.yaml that a run directory keeps."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import reduce
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.schema import GROUPS, PLACES, open_part, open_run
from data_pipeline.atomic import atomically
from models.pixels import PixelRange
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.run import Run

# Of the engine only what is computed is fixed: its precision and where it clips.
COMPUTED = ("precision", "clip_norm")
ENGINE = sorted(
    {"choices.engine"}
    | {
        f"engine.{field.name}"
        for node in GROUPS["engine"].values()
        for field in fields(node)
        if field.name not in COMPUTED
    }
)

# How remote shards come to a node.
CACHE = ("data.cache", "data.cache_bytes", "data.timeout", "data.retries")

# What may change between a run and its resumption: how long, how often and how fast, but not what is computed.
FREE = (
    "run.directory",  # a run may be moved
    "run.images",
    "run.save_every",
    "run.keep",
    "run.log_every",
    "run.patience",
    "run.bad_steps",
    "data.shards",  # so may its data: checkpoints know it by its content
    "data.workers",
    "data.prefetch",
    "data.decoder",  # which changes no pixel
    "data.on_error",  # a run that met a bad image goes on with skip
    *CACHE,
    "sampler",
    "choices.sampler",
    "preview",
    "choices.preview.sampler",
    *ENGINE,
)

# What may differ between the ranks of a run: where a node keeps the data, and how it reads them.
OWN = ("data.shards", "data.workers", "data.prefetch", *CACHE)


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


def keep_config(config: DictConfig, run: Run, writes: bool = True) -> None:
    """Writes config.yaml, on the rank that `writes`.

    Raises ValueError for what differs from an old one, once there is a checkpoint.
    """
    path = run.directory / "config.yaml"
    document = to_document(config, run)
    if path.exists() and Checkpoints(run.checkpoints()).all():
        # A run from before a field was there did what the field's default does.
        defaults = OmegaConf.to_container(opened(choices(run)), enum_to_str=True)
        differing = differences({**flat(defaults), **flat(read_config(path))}, flat(document))
        if differing:
            raise ValueError(
                f"{run.directory} is the directory of another run, which differs in {'; '.join(differing)}. "
                "Give the old values, or another run.directory"
            )
    if not writes:
        return
    run.directory.mkdir(parents=True, exist_ok=True)
    with atomically(path) as file:
        file.write(OmegaConf.to_yaml(document).encode())


def to_document(config: DictConfig, run: Run) -> dict[str, object]:
    """All that is chosen, as plain values: what config.yaml holds."""
    document = {"choices": choices(run), **cast(dict[str, object], OmegaConf.to_container(config, resolve=True))}
    return cast(dict[str, object], OmegaConf.to_container(OmegaConf.create(document), enum_to_str=True))


def load_run(directory: Path) -> Run:
    """The run that a directory holds. Raises ValueError where there is none."""
    path = directory / "config.yaml"
    if not path.exists():
        raise ValueError(f"run.directory={directory} holds no run: there is no {path}")
    document = read_config(path)
    chosen = cast(dict[str, str], document.pop("choices"))
    cast(dict[str, str], document["run"])["directory"] = str(directory)  # it may have been moved
    return cast(Run, to_value(cast(DictConfig, OmegaConf.merge(opened(chosen), document))))


def opened(chosen: dict[str, str]) -> DictConfig:
    """The schema of a run of these variants, place → name, with the defaults of all fields that have one."""
    config = open_run()
    for place, name in chosen.items():
        OmegaConf.update(config, place, open_part(PLACES[place], name))
    return config


def read_config(path: Path) -> dict[str, object]:
    """A kept config.yaml as plain values."""
    try:
        document = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not (isinstance(document, dict) and {"choices", "run"} <= document.keys()):
        raise ValueError(f"{path} is no config of a run: it lacks choices or run")
    # A run from before these were chosen had the one kind there was.
    document["choices"] = {"data": "shards", "process": "gaussian", "engine": "local", **document["choices"]}
    # So had one from before a pixel's mean and deviation could be chosen.
    if document.get("pixels") in ("signed", "unit"):
        document["pixels"] = asdict(getattr(PixelRange, document["pixels"]))
    return cast(dict[str, object], document)


def choices(run: Run) -> dict[str, str]:
    """Which variant of each part a run is made of: place → name."""
    chosen = {}
    for place, group in PLACES.items():
        *around, field = place.split(".")
        whole = reduce(getattr, around, run)
        if hasattr(whole, field):  # not every variant of a part has the groups that another has inside it
            part = getattr(whole, field)
            chosen[place] = next(name for name, node in GROUPS[group].items() if node is type(part))
    return chosen


def flat(document: object, prefix: str = "", without: tuple[str, ...] = FREE) -> dict[str, object]:
    """Nested values by dotted path, without those that may change on resumption."""
    if prefix in without:
        return {}
    if not isinstance(document, dict):
        return {prefix: document}
    below = [flat(value, f"{prefix}.{key}" if prefix else key, without) for key, value in document.items()]
    return {path: value for values in below for path, value in values.items()}


def differences(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """Each field that has another value, as a person would say it."""
    fields = sorted(old.keys() | new.keys())
    return [
        f"{name}: {old.get(name)} there, {new.get(name)} here" for name in fields if old.get(name) != new.get(name)
    ]


def changes(old: str, new: str) -> list[str]:
    """Each choice in which two kept configurations differ, those that may change on resumption left out."""
    return differences(flat(yaml.safe_load(old)), flat(yaml.safe_load(new)))
