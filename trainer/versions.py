"""What must be the same on every rank: versions, this system's own code, and the configuration."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trainer.distributed import World

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "data_pipeline", "trainer", "configs", "launch")


@cache
def versions() -> dict[str, str]:
    """The versions of Python, torch, DeepSpeed and this system, by what its code says."""
    found = {"python": platform.python_version()}
    for name in ("torch", "deepspeed"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    code = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        code.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return found | {"quasistatic": f"the code {code.hexdigest()[:12]}"}


def check_alike(world: World, facts: Mapping[str, object]) -> None:
    """Raises ValueError, on every rank, for the first fact that is another one on some rank than on rank 0.

    Digests go around first, the facts themselves only where those differ.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    digests = world.everyones(digest)
    if len(set(digests)) == 1:
        return
    told = world.everyones((platform.node(), {name: str(value) for name, value in facts.items()}))
    host, first = told[0]
    for rank, (other_host, facts_there) in enumerate(told):
        for name in [*first, *(name for name in facts_there if name not in first)]:
            here, there = first.get(name, "absent"), facts_there.get(name, "absent")
            if here != there:
                raise ValueError(
                    f"the ranks do not agree in {name}: rank 0 on {host} has {here}, rank {rank} on {other_host} "
                    f"has {there}; start every rank with the same command, from the same code and environment"
                )
