"""Batches onto the device: untouched on a CPU, by a stream of their own onto an accelerator."""

from __future__ import annotations

import weakref
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from data_pipeline.batches import Batch
from trainer.feed import Feed


def batch(labels: bool = True) -> Batch:
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    return Batch(x, torch.tensor([3, 1]) if labels else None, torch.tensor([8, 9]), cursor=12, global_size=4)


@pytest.mark.parametrize("labels", [True, False])
def test_on_a_cpu_a_batch_stays_where_it_is(labels):
    whole = batch(labels)
    fed = Feed(torch.device("cpu"))(whole)
    assert all(
        now is before
        for now, before in ((fed.x, whole.x), (fed.condition, whole.condition), (fed.index, whole.index))
    )
    assert (fed.cursor, fed.global_size) == (12, 4)


class RecordedEvent:
    """Past or not, as the test says."""

    past = False

    def query(self) -> bool:
        return self.past


class RecordedStream:
    """What is asked of a stream, in order, in a list that all share."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def record_event(self) -> RecordedEvent:
        return RecordedEvent()

    def wait_stream(self, other: RecordedStream) -> None:
        self.told.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens on an accelerator that is not there: tensors without contents, streams that only write down."""
    told: list[str] = []
    copy = torch.Tensor.to

    @contextmanager
    def on(stream: RecordedStream):
        told.append(f"{stream.name} begins")
        yield
        told.append(f"{stream.name} ends")

    def recorded_copy(tensor, device, non_blocking=False):
        told.append(f"copy to {device}, {'not waited for' if non_blocking else 'waited for'}")
        return copy(tensor, device, non_blocking=non_blocking)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: RecordedStream("side", told))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: RecordedStream("present", told))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.Tensor, "to", recorded_copy)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: told.append(f"kept for {stream.name}"))
    return told


def test_on_an_accelerator_copies_run_aside_and_the_step_waits_for_them_on_the_device(told):
    with FakeTensorMode(allow_non_fake_inputs=True):
        fed = Feed(torch.device("cuda", 0))(batch())
    assert {fed.x.device.type, fed.condition.device.type, fed.index.device.type} == {"cuda"}
    copies = ["copy to cuda:0, not waited for"] * 3
    kept = ["kept for present"] * 3  # else the side stream could write the next batch into memory still read from
    assert told == ["side begins", *copies, "side ends", "present waits for side", *kept]


def test_the_hosts_memory_is_held_until_it_has_been_copied(told, monkeypatch):
    whole = [batch() for _ in range(3)]
    held = [weakref.ref(each) for each in whole]
    with FakeTensorMode(allow_non_fake_inputs=True):
        feed = Feed(torch.device("cuda", 0))
        for _ in range(2):
            feed(whole.pop(0))
        assert [each() is not None for each in held] == [True, True, True]
        monkeypatch.setattr(RecordedEvent, "past", True)
        feed(whole.pop(0))
    assert [each() is not None for each in held] == [False, False, True]
