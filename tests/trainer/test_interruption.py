"""Signals set a flag and nothing else."""

from __future__ import annotations

import os
import signal

import pytest

from trainer.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_noted_and_not_obeyed(number):
    with Interruption() as asked_to_leave:
        assert not asked_to_leave()
        os.kill(os.getpid(), number)
        assert asked_to_leave()
        assert asked_to_leave.name == number.name


def test_afterwards_signals_do_what_they_did_before():
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
