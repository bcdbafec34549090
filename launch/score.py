"""A score, kept with its run and printed: how every door that measures ends."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from data_pipeline.atomic import atomically


def keep(score: dict[str, object], directory: Path, name: str, choices: list[object]) -> None:
    """Writes the score under the run's metrics/ and prints it as one line of JSON.

    The file's name tells scores of other choices apart, whatever those are.
    """
    mark = zlib.crc32(json.dumps(choices).encode())
    out = directory / "metrics" / f"{name}-{mark:08x}.json"
    out.parent.mkdir(exist_ok=True)
    with atomically(out) as file:
        file.write(json.dumps(score, indent=2, ensure_ascii=False).encode())
    print(json.dumps(score, ensure_ascii=False))
