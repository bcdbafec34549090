"""Checkpoints of a training run: one interface for saving, restoring and what is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from trainer.checkpoints.architecture import check_names
from trainer.checkpoints.average import average_of, ema_kind
from trainer.checkpoints.contents import everything_in, kinds_of
from trainer.checkpoints.listing import Listing
from trainer.checkpoints.manifest import Manifest
from trainer.checkpoints.saver import Saver
from trainer.checkpoints.storage import load
from trainer.checkpoints.warm_start import WarmStart
from trainer.distributed import World
from trainer.engines.engine import MOMENTS
from trainer.state import TrainState
from trainer.versions import versions


@dataclass
class Checkpoints(Listing):
    """The checkpoints of a run. Every rank of `world` calls every method that saves or restores alike.

    patience: the seconds that a rank waits for what another one writes.
    """

    world: World = field(default_factory=World)
    patience: float = 600.0
    note: Callable[[str], None] = field(default=lambda line: None)
    _saver: Saver | None = None
    _under_way: Future[str] | None = None
    _lines: list[str] = field(default_factory=list)

    def restore(self, state: TrainState, warm_start: WarmStart | None = None) -> TrainState:
        """`state`, moved to the newest checkpoint; else with the weights of a warm start; else as it was.

        Raises ValueError, on every rank, where that cannot be. What is of another run or network is refused before
        anything is overwritten; after another error the state is not to be used.
        """
        with self.world.together():
            if self.world.is_main:
                self.clear()
        newest = self.world.everyones([path.name for path in self.all()[-1:]])[0]
        if newest:
            self._resume(state, self.directory / newest[0])
        elif warm_start and warm_start.path:
            with self.world.together():
                warm_start.begin(state)
            state.engine.refresh()
            self._lines.append(f"began with the weights of {warm_start.path}")
        return state

    def _resume(self, state: TrainState, checkpoint: Path) -> None:
        with self.world.together():
            manifest = Manifest.read(checkpoint)
            check_same(state, manifest)
        with self.world.together():
            load(manifest, everything_in(state))
        state.engine.refresh()
        state.images, state.cursor = manifest.images, manifest.cursor
        there, here = manifest.about.get("versions", {}), versions()
        for name in here.keys() & there.keys():
            if here[name] != there[name]:
                self._lines.append(f"{checkpoint} was saved with {name} {there[name]}; this is {here[name]}")

    def save(self, state: TrainState) -> Path:
        """Copies the state and lets training go on while the copy is written; it is committed when all is written.

        One save is under way at a time: where the last one is, it is waited for, and what went wrong with it, such
        as a full disk, is raised as OSError on every rank. The checkpoint before it then stays the latest.
        """
        start = time.monotonic()
        self.wait()
        waited = time.monotonic() - start
        target = self.named(state.images)
        if self.world.everyones(target.exists())[0]:
            return target  # the run stands where it was when it resumed: there is nothing new
        if self._saver is None:
            self._saver = Saver(self, state, self.world, self.patience)
        assert state is self._saver.state
        self._under_way = self._saver()
        self._lines.append(
            f"saving {target}: training stood still for {time.monotonic() - start:.3f} s, of which it waited "
            f"{waited:.3f} s for the save before"
        )
        self.tell()
        return target

    def wait(self) -> None:
        """Waits for the save under way. Raises OSError, on every rank, where it came to nothing."""
        if self._under_way is not None:
            ended, self._under_way = self._under_way, None
            self._lines.append(ended.result())

    def tell(self) -> None:
        """Notes what there is to tell: of restoring, of a save begun, and of one that is whole meanwhile."""
        if self._under_way is not None and self._under_way.done() and not self._under_way.exception():
            self.wait()
        lines, self._lines = self._lines, []
        for line in lines:
            self.note(line)

    @contextmanager
    def telling(self, note: Callable[[str], None]) -> Iterator[None]:
        """Within it `note` is told of every save; leaving it waits for the last one."""
        self.note = note
        try:
            yield
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                self.wait()
            raise
        else:
            self.wait()
        finally:
            self.tell()
            if self._saver is not None:
                self._saver.close()
                self._saver = None


def check_same(state: TrainState, manifest: Manifest) -> None:
    """Raises ValueError where a checkpoint is of other data or another network, or lacks an average."""
    if manifest.data != state.data:
        raise ValueError(
            f"{manifest.directory} was trained on other shards than data.shards holds now (by their checksums); "
            "give the old shards, wherever they lie, or another run.directory"
        )
    ours = kinds_of(state)
    for kind in ("parameters", *MOMENTS, "steps"):
        check_names(kind, ours[kind], manifest.of_kind(kind))
    for half_life in state.ema.averages:
        check_names(ema_kind(half_life), ours[ema_kind(half_life)], average_of(manifest, half_life))
