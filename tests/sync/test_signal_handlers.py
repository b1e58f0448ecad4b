"""A signal handler may close the client at any moment: nothing hangs, fails, or stays open."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


# Each switch of the load waits 0.25 s.
@pytest.mark.parametrize(("call", "stride"), [("open", 1), ("read", 1), ("set_load", 13), ("poll", 1), ("close", 1)])
@pytest.mark.parametrize("kind", ["tcp", "pyserial"])
def test_a_signal_handler_may_close_the_client_at_any_line_of_a_call(kind: str, call: str, stride: int) -> None:
    # In a process of its own, because a deadlock would stop all tests.
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.sync.closing_program", kind, call, str(stride)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.stderr == ""  # also no warning of a descriptor that was not closed
    assert int(ended.stdout) > 50
