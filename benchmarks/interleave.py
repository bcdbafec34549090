"""Times several ways of doing one thing, turn by turn, so that a machine that drifts slows all of them alike."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is than one peer: the median over the turns, and the middle half's spread."""

    claim: str
    peer: str
    ratio: float
    low: float
    high: float
    target: float

    def row(self) -> str:
        """A row of the table in the documentation."""
        met = "yes" if self.ratio >= self.target else "**no**"
        return (
            f"| {self.claim} | {self.peer} | {self.ratio:.2f}× | {self.low:.2f}-{self.high:.2f} "
            f"| {self.target:g}× | {met} |"
        )


HEADER = "| claim | peer | ratio | middle half | target | met |\n|---|---|---|---|---|---|"


def interleave(ways: Mapping[str, Callable[[], object]], turns: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of each way in each turn. The order within a turn alternates, so neither always runs second."""
    for _ in range(warmup):
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(claim: str, peer: str, target: float, theirs: list[float], ours: list[float]) -> Ratio:
    """Ours against theirs, turn by turn."""
    quotients = [their / our for their, our in zip(theirs, ours, strict=True)]
    low, middle, high = statistics.quantiles(quotients, n=4)
    return Ratio(claim, peer, middle, low, high, target)


def publish(name: str, ratios: list[Ratio]) -> None:
    """Prints the table and keeps it as JSON, with the machine and the versions that gave it."""
    print(HEADER, *(one.row() for one in ratios), sep="\n")
    machine = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(" ".join(f"{key}={value}" for key, value in machine.items()))
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine, "ratios": [asdict(one) for one in ratios]}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def processor() -> str:
    """The processor's name and the number formats that it multiplies matrices in."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    flags = next((line for line in lines if line.startswith("flags")), "")
    return name + "".join(f" {flag}" for flag in ("avx512_bf16", "amx_bf16") if flag in flags)
