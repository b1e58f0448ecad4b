"""A signal handler may close a client at any moment, so also in the middle of each call of its recorder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Calls a method of a new recorder again and again. Each time, the signal comes one line of Python later, in the
# recorder or in what it calls. The handler does what a client does when it is closed. Prints how many lines there were.
PROGRAM = """
import faulthandler, signal, sys
from contextlib import suppress
from pathlib import Path
from tracer_async.capture import Recorder

method, folder = sys.argv[1], Path(sys.argv[2])

def interrupted(number):
    recorder = Recorder(folder / str(number))
    calls = {
        "begin": lambda: recorder.begin("sim:", 0.0),
        "record": lambda: recorder.record("client", b"second", 0.2),
        "close": recorder.close,
    }

    def on_signal(*_):
        recorder.record_link(0.3, up=False, by_client=True)
        recorder.end()
        recorder.close()

    def trace(frame, event, argument):
        nonlocal left
        if event == "line":
            if left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGTERM)
            left -= 1
        return trace

    signal.signal(signal.SIGTERM, on_signal)
    if method != "begin":
        recorder.begin("sim:", 0.0)
        recorder.record("client", b"first", 0.1)
    left = number
    sys.settrace(trace)
    # A recorder that was closed just before it begins says so.
    with suppress(*[RuntimeError] * (method == "begin")):
        calls[method]()
    sys.settrace(None)
    recorder.close()
    return left < 0

number = 0
faulthandler.dump_traceback_later(10, exit=True)
while interrupted(number):
    number += 1
print(number)
"""


@pytest.mark.parametrize("method", ["begin", "record", "close"])
def test_a_signal_handler_may_close_a_recorder_at_any_line_of_a_method(tmp_path: Path, method: str) -> None:
    run = [sys.executable, "-c", PROGRAM, method, str(tmp_path)]
    done = subprocess.run(run, cwd=ROOT, check=False, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3
    for path in tmp_path.iterdir():
        senders = [json.loads(line).get("from") for line in path.read_bytes().splitlines()]
        if method == "begin":
            assert senders[:1] in ([], [None])  # the header, unless the recorder was closed before
        else:
            assert senders[:2] == [None, "client"]
