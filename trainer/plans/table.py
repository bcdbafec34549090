"""A plan as text."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.plans.plan import Plan
from trainer.plans.traffic import Sent

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

# What is said of each kind of memory.
KINDS = {
    "weights": "weights, fp32",
    "copies": "working copies, kept",
    "passing": "working copies, in passing",
    "gradients": "gradients",
    "moments": "Adam's moments",
    "averages": "averages (EMA)",
    "activations": "activations, at their peak",
    "buffers": "communication buffers",
}


def table(plan: Plan, engine: str) -> str:
    """All of it, a line a figure."""
    return "\n".join(
        [*heading(plan, engine), "", *memory(plan), "", *traffic(plan), "", *checkpoint(plan), *reading(plan)]
    )


def heading(plan: Plan, engine: str) -> Iterator[str]:
    """What is planned."""
    ranks, each = plan.cluster.ranks, plan.cluster.ranks_per_node
    yield f"{plan.parameters:,} parameters, engine={engine}, {ranks} ranks, {each} a node"
    yield (
        f"{plan.batch} images a step: each rank {plan.accumulation} x {plan.micro_batch} (micro-batches x images)"
    )
    if plan.note:
        yield f"note: {plan.note}"


def memory(plan: Plan) -> Iterator[str]:
    """Of the fullest rank, by kind."""
    device, host = plan.memory.device, plan.memory.host
    yield f"{'memory of the fullest rank':<34}{'device':>12}{'host':>12}"
    for kind, said in KINDS.items():
        yield f"  {said:<32}{readable(getattr(device, kind)):>12}{readable(getattr(host, kind)):>12}"
    yield f"  {'total, if all at once':<32}{readable(device.total):>12}{readable(host.total):>12}"
    for name, held in plan.activations.items():
        yield f"  activations if {name}: peak {readable(held.peak)}, {readable(held.kept)} after the forward pass"


def traffic(plan: Plan) -> Iterator[str]:
    """Of one step, by collective."""
    yield "sent by a rank in a step (ring; it receives as much)"
    for sent in plan.traffic:
        yield f"  {row(sent)}"
    yield f"  {'total':<46}{readable(sum(sent.sent for sent in plan.traffic)):>12}"


def row(sent: Sent) -> str:
    """One collective."""
    said = f"{sent.operation} of {sent.what}, {sent.times} x {sent.ranks} ranks"
    return f"{said:<46}{readable(sent.sent):>12}"


def checkpoint(plan: Plan) -> Iterator[str]:
    """Its files."""
    saved = plan.checkpoint
    yield (
        f"checkpoint: {saved.files} files, {readable(saved.total)} in all, {readable(saved.fullest)} the largest"
    )
    yield f"  its manifest lists {saved.chunks:,} chunks in about {readable(saved.manifest)}"


def reading(plan: Plan) -> Iterator[str]:
    """What a node reads."""
    found = plan.reading
    if found is None:
        yield "reading: samples are drawn, not read"
        return
    yield (
        f"reading: each of {found.nodes} nodes reads {found.samples} samples a step, from "
        f"{found.shards_a_step:.1f} of {found.shards} shards; from {found.shards_in_steps} in {found.steps} steps"
    )


def readable(size: int) -> str:
    """Bytes in the unit that leaves the fewest digits."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.4g} {UNITS[unit]}" if unit else f"{size} B"
