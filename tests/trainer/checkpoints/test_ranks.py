"""Checkpoints of many ranks: saved by any cut on any number of them, loaded by any other, bit for bit."""

from __future__ import annotations

import itertools
from importlib import metadata
from pathlib import Path

import pytest
import torch

from tests.trainer.checkpoints import cuts
from tests.trainer.ranks import on_ranks
from trainer.checkpoints import storage
from trainer.checkpoints.checkpoints import Checkpoints
from trainer.checkpoints.claim import Superseded
from trainer.checkpoints.contents import everything_in
from trainer.checkpoints.manifest import Manifest
from trainer.checkpoints.warm_start import Source, WarmStart
from trainer.distributed import FailedElsewhere, World

KINDS = ("replicated", "rows", "stretches")


def of(directory: Path, kind: str, size: int) -> Path:
    return directory / f"{kind}-{size}"


def save_and_load(world: World, directory: Path, sizes: list[int]) -> list[str]:
    """Saves each kind of cut, then loads what worlds of these sizes have saved, each kind into another one."""
    faults = []
    for kind in (*KINDS, "hybrid") if world.size == 4 else KINDS:
        state = cuts.state(kind, world.rank, world.size, seed=1)
        cuts.saved(Checkpoints(of(directory, kind, world.size), world=world), state)
    for number, (size, kind) in enumerate(itertools.product(sizes, KINDS)):
        source, into = of(directory, kind, size), KINDS[(number + size + world.size) % 3]
        state = cuts.state(into, world.rank, world.size, seed=9)
        Checkpoints(source, world=world).restore(state)
        where = f"{source.name} on {world.size} as {into}"
        faults += [f"{where}: {fault}" for fault in cuts.wrong(state, seed=1)]
        faults += [where] if (state.images, state.cursor, state.engine.refreshed) != (8, 9, 1) else []
    return faults


@pytest.fixture(scope="module")
def saved_by_all(tmp_path_factory):
    """Checkpoints of every kind, saved on 1, 2, 3 and 4 ranks; each world has loaded those before it."""
    directory = tmp_path_factory.mktemp("saved")
    assert save_and_load(World(), directory, [1]) == []
    for size, before in ((3, [1]), (2, [1, 3]), (4, [1, 2, 3, 4])):
        assert on_ranks(size, save_and_load, directory, before) == [[]] * size
    return directory


def test_what_many_ranks_saved_one_loads(saved_by_all):
    assert save_and_load(World(), saved_by_all, [2, 3, 4]) == []
    state = cuts.state("rows", 0, 1, seed=9)
    Checkpoints(of(saved_by_all, "hybrid", 4)).restore(state)
    assert cuts.wrong(state, seed=1) == []


@pytest.mark.parametrize(
    ("kind", "size"), [("replicated", 2), ("replicated", 3), ("replicated", 4), ("hybrid", 4)]
)
def test_what_several_ranks_hold_is_written_once_and_by_all_of_them(saved_by_all, kind, size):
    manifest = Manifest.read(Checkpoints(of(saved_by_all, kind, size)).latest())
    once = sum(saved.count for _, saved in manifest.items())
    written = {name: facts["bytes"] for name, facts in manifest.files.items()}
    headers = 4096 * size
    assert once * 4 < sum(written.values()) < once * 4 + headers
    assert len(written) == size
    # Of five tensors as large as each other, two ranks of four cannot have less than two; no rank has more.
    assert max(written.values()) <= 4 * 2 * 300_300 * (3 if size == 2 else 2) / 2 + headers


def test_the_manifest_says_what_saved_it(saved_by_all):
    manifest = Manifest.read(Checkpoints(of(saved_by_all, "rows", 3)).latest())
    assert (manifest.images, manifest.cursor, manifest.data) == (8, 9, "data")
    assert (manifest.about["engine"], manifest.about["ranks"]) == ("local", 3)
    assert manifest.about["versions"]["torch"] == metadata.version("torch")
    assert manifest.of_kind("parameters")["in.weight"].shape == (7, 3, 3)


def raises(kind: type[Exception], match: str, call, *arguments: object) -> None:
    """On this rank."""
    with pytest.raises(kind, match=match):
        call(*arguments)


def troubles(world: World, directory: Path) -> None:
    """A save that one rank cannot write; a file that only one rank needs and that was altered."""
    checkpoints = Checkpoints(directory / "full", world=world)
    state = cuts.state("rows", world.rank, world.size, seed=1)
    first = cuts.saved(checkpoints, state)
    state.images += 8
    write = storage.write

    def full(path: Path, shards: object) -> object:
        if world.rank == 1:
            raise OSError(28, f"{path}: No space left on device")
        return write(path, shards)

    storage.write = full
    checkpoints.save(state)
    told = rf"could not save checkpoint .*000000000016: rank 1: .*rank-00001\.safetensors.*stays {first.name}"
    raises(OSError, told, checkpoints.wait)
    storage.write = write
    world.everyones(None)  # the first rank has cleaned up
    assert [path.name for path in checkpoints.directory.iterdir()] == [first.name]
    again = cuts.saved(checkpoints, state)
    assert checkpoints.latest() == again

    if world.is_main:
        path = again / "rank-00001.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    world.everyones(None)
    fresh = cuts.state("rows", world.rank, world.size, seed=2)
    kind = ValueError if world.rank == 1 else FailedElsewhere
    raises(kind, r"rank-00001\.safetensors was altered", checkpoints.restore, fresh)
    if world.is_main:
        path.unlink()
    world.everyones(None)
    raises(ValueError, r"rank-00001\.safetensors is missing", checkpoints.restore, fresh)


def while_training(world: World, directory: Path) -> list[str]:
    """What is saved is the state as it was when save was called, whatever becomes of it meanwhile."""
    lines: list[str] = []
    checkpoints = Checkpoints(directory / "training", keep=2, world=world)
    state = cuts.state("replicated", world.rank, world.size, seed=1)
    with checkpoints.telling(lines.append):
        for seed in (1, 2, 3, 4):
            checkpoints.save(state)
            for named in state.engine.state().values():
                for shard in named.values():
                    shard.tensor.fill_(float("nan"))
            other = cuts.state("replicated", world.rank, world.size, seed + 1)
            state.images = other.images
            for into, out_of in zip(everything_in(state).values(), everything_in(other).values(), strict=True):
                into.tensor.copy_(out_of.tensor)
    world.everyones(None)  # the first rank has taken away the oldest
    assert [int(path.name) for path in checkpoints.all()] == [24, 32]
    for seed in (3, 4):
        found = cuts.state("rows", world.rank, world.size, 9)
        manifest = Manifest.read(checkpoints.at(8 * seed))
        storage.load(manifest, everything_in(found))
        assert cuts.wrong(found, seed) == []
    return lines


class Moving(WarmStart):
    """From a run that saves again as soon as the first rank has looked for its latest checkpoint."""

    def find(self) -> Source:
        found = super().find()
        cuts.saved(Checkpoints(Path(self.path) / "checkpoints"), cuts.state("rows", 0, 1, seed=2))
        return found


def from_a_run_that_goes_on(world: World, directory: Path) -> None:
    """Every rank begins with the weights that the first one found."""
    source = directory / "source"
    if world.is_main:
        cuts.saved(Checkpoints(source / "checkpoints"), cuts.state("rows", 0, 1, seed=1))
    begun = cuts.state("replicated", world.rank, world.size, seed=9)
    Checkpoints(directory / "begun", world=world).restore(begun, Moving(str(source)))
    for name, shard in begun.engine.shards().items():
        assert torch.equal(shard.whole, cuts.whole("ema-100.0", name, 1)), name
    assert [int(path.name) for path in Checkpoints(source / "checkpoints").all()] == [8, 16]


def with_another_launch(world: World, directory: Path) -> None:
    """Every rank of the earlier one is told, and nothing of it is committed."""
    state = cuts.state("rows", world.rank, world.size, seed=1)
    first, second = (Checkpoints(directory / "twice", world=world) for _ in range(2))
    cuts.saved(first, first.restore(state))
    second.restore(cuts.state("rows", world.rank, world.size, seed=9))
    state.images += 8
    first.save(state)
    raises(Superseded, r"rank 0: process \d+ on .* writes the checkpoints of this run since", first.wait)
    world.everyones(None)  # the first rank has cleaned up
    assert [path.name for path in first.directory.iterdir()] == ["000000000008"]


def all_of_it(world: World, directory: Path) -> list[str]:
    troubles(world, directory)
    from_a_run_that_goes_on(world, directory)
    with_another_launch(world, directory)
    return while_training(world, directory)


def test_trouble_on_one_rank_is_every_ranks_and_training_does_not_disturb_a_save(tmp_path):
    for lines in on_ranks(2, all_of_it, tmp_path):
        assert [line.split()[0] for line in lines].count("saving") == 4
        assert [line.split()[0] for line in lines].count("saved") == 4
