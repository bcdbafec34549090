"""Checkpoints of a training run: one interface for saving, restoring and what is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from trainer.checkpoints.architecture import check_names
from trainer.checkpoints.average import average_of, ema_kind
from trainer.checkpoints.claim import Claim, Superseded
from trainer.checkpoints.contents import about, everything_in, kinds_of
from trainer.checkpoints.listing import Listing
from trainer.checkpoints.manifest import Manifest
from trainer.checkpoints.saver import Saver
from trainer.checkpoints.storage import load
from trainer.checkpoints.warm_start import WarmStart
from trainer.distributed import LostRank, World
from trainer.engines.engine import MOMENTS
from trainer.state import TrainState
from trainer.versions import versions

FAILURES = 3  # in a row, after which a run that saves nothing is not to go on
log = logging.getLogger(__name__)


@dataclass
class Checkpoints(Listing):
    """The checkpoints of a run. Every rank of `world` calls every method that saves or restores alike.

    patience: the seconds that a rank waits for what another one writes. note: is told of every save; without one
    the first rank logs it.
    """

    world: World = field(default_factory=World)
    patience: float = 600.0
    note: Callable[[str], None] | None = None
    _claim: Claim | None = None
    _config: str = ""
    _saver: Saver | None = None
    _under_way: Future[str] | None = None
    _failures: list[OSError] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)

    def restore(self, state: TrainState, warm_start: WarmStart | None = None) -> TrainState:
        """`state`, moved to the newest checkpoint; else with the weights of a warm start; else as it was.

        Raises ValueError, on every rank, where that cannot be. What is of another run or network is refused before
        anything is overwritten; after another error the state is not to be used.
        """
        self._begin()
        newest = self.world.everyones([path.name for path in self.all()[-1:]])[0]
        if newest:
            self._resume(state, self.directory / newest[0])
        elif warm_start and warm_start.path:
            with self.world.together():
                found = warm_start.find() if self.world.is_main else None
            source = self.world.everyones(found)[0]  # one for all, as a run that goes on may save meanwhile
            with self.world.together():
                warm_start.begin(state, source)
            state.engine.refresh()
            self._lines.append(f"began with the weights of {source.path}")
        return state

    def _begin(self) -> None:
        """This launch is the one that saves. The config is that of now, whatever becomes of the file."""
        claim, config = self._claim or Claim.new(self.directory), self.directory.parent / "config.yaml"
        with self.world.together():
            if self.world.is_main:
                claim.take()
                self._sweep()
                self._config = config.read_text() if config.exists() else ""
        self._claim = self.world.everyones(claim)[0]

    def _sweep(self) -> None:
        try:
            self.clear()
        except OSError as error:
            self._lines.append(f"what an earlier launch left in {self.directory} could not be removed: {error}")

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

        One save is under way at a time: where the last one is, it is waited for. Where it came to nothing, as on
        a full disk, this one is another try, and the checkpoint before stays the latest meanwhile. Raises OSError,
        on every rank, after `FAILURES` in a row, or where another launch of the run saves now.
        """
        start = time.monotonic()
        self._settle()
        if len(self._failures) >= FAILURES:
            self.wait()
        waited = time.monotonic() - start
        target = self.named(state.images)
        if self.world.everyones(target.exists())[0]:
            return target  # the run stands where it was when it resumed: there is nothing new
        self._under_way = self._saver_of(state)()
        self._lines.append(
            f"saving {target}: training stood still for {time.monotonic() - start:.3f} s, of which it waited "
            f"{waited:.3f} s for the save before"
        )
        self.tell()
        return target

    def _saver_of(self, state: TrainState) -> Saver:
        if self._claim is None:
            self._begin()
        if self._saver is None:
            assert self._claim is not None
            told = about(state, self.world, self._config)
            self._saver = Saver(self, self._claim, told, state, self.world, self.patience)
        assert state is self._saver.state
        return self._saver

    def wait(self) -> None:
        """Waits for the save under way. Raises OSError, on every rank, where the last one came to nothing."""
        self._settle()
        failures, self._failures = self._failures, []
        if failures:
            raise failures[-1]

    def _settle(self) -> None:
        """Waits for the save under way and takes note of how it ended, which is the same on every rank."""
        if self._under_way is None:
            return
        ended, self._under_way = self._under_way, None
        try:
            self._lines.append(ended.result())
            self._failures = []
        except (Superseded, LostRank):
            raise
        except OSError as error:
            self._failures.append(error)
            self._lines.append(
                f"warning: {error} (failure {len(self._failures)} in a row, {FAILURES} end the run)"
            )

    def tell(self) -> None:
        """Notes what there is to tell: of restoring, of a save begun, and of one that has ended meanwhile.

        What ends the run is left to `save` and `wait`, where every rank meets it at the same step.
        """
        ended = self._under_way is not None and self._under_way.done()
        if ended and not isinstance(self._under_way.exception(), (Superseded, LostRank)):
            self._settle()
        lines, self._lines = self._lines, []
        for line in lines:
            if self.note is not None:
                self.note(line)
            elif self.world.is_main:
                log.info(line)

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
