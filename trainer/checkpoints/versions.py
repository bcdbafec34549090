"""The versions that a run is made with, as its checkpoints note them."""

from __future__ import annotations

import platform
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "deepspeed")  # the ones that decide how a state is computed; the second may be absent


@cache
def versions() -> dict[str, str]:
    """By name."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    there = {name: found for name in PACKAGES if (found := version(name))}
    return {"quasistatic": project["project"]["version"], "python": platform.python_version(), **there}


def version(package: str) -> str:
    """Of an installed package; nothing where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
