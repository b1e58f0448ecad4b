"""A disk that is full for some time costs the records of that time, and nothing else.

The limit for the size of files is the full disk: the kernel writes up to the limit, and sends SIGXFSZ for each write
that fails. The judge reads the lines with `json` only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tracer_async.capture import Recorder

if sys.platform == "win32":
    pytest.skip("Windows has no limit for the size of files", allow_module_level=True)

ROOT = Path(__file__).parents[2]

# Records until six writes have failed, and once more when the disk has space again. Prints the number of bursts.
PROGRAM = """
import resource, select, signal, socket, sys
from tracer_async.capture import Recorder, _recorder
_recorder._COLLECT = 0.01
path, limit = sys.argv[1], int(sys.argv[2])
heard, noticed = socket.socketpair()
noticed.setblocking(False)
signal.signal(signal.SIGXFSZ, lambda *_: None)
signal.set_wakeup_fd(noticed.fileno())
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
recorder = Recorder(path)
recorder.begin("sim:", 0.0, timeout=1.0)
number = failures = 0
while failures < 6:
    recorder.record("controller", bytes(3), float(number))
    number += 1
    if select.select([heard], [], [], 0.02)[0]:
        heard.recv(1)
        failures += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
recorder.record("controller", bytes(3), float(number))
recorder.close()
print(number + 1)
"""


def record(path: Path, limit: int) -> int:
    run = [sys.executable, "-c", PROGRAM, str(path), str(limit)]
    return int(subprocess.run(run, cwd=ROOT, check=True, timeout=60, stdout=subprocess.PIPE).stdout)


EARLIER = b'{"t": 100.0, "time": 1780308100.0, "from": "controller", "hex": "00"}\n'
TORN = EARLIER + b'{"t": 100.1, "time"'


def good_lines(data: bytes) -> list[dict[str, Any]]:
    lines = []
    for line in data.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


@pytest.mark.parametrize("before", [b"", EARLIER, TORN], ids=["new file", "continued file", "torn file"])
@pytest.mark.parametrize("space", [0, 1, 40, 300, 500], ids=lambda space: f"{space} bytes free")
def test_after_a_full_disk_each_record_is_in_the_file_or_counted(tmp_path: Path, before: bytes, space: int) -> None:
    path = tmp_path / "line.jsonl"
    path.write_bytes(before)
    given = record(path, len(before) + space)
    data = path.read_bytes()
    assert data.startswith(before)
    header, *lines = good_lines(data[len(before) :])
    assert header["recorded"] == "sim:"
    assert not [line for line in lines if "format" in line]
    bursts = [line["t"] for line in lines if "hex" in line]
    missing = [line["number"] for line in lines if line.get("event") == "missing"]
    assert len(bursts) + sum(missing) == given
    assert missing
    assert bursts[-1] == given - 1
    # The times are 0, 1, 2 and so on, so they tell where records are missing.
    number = 0
    for line in lines:
        if "hex" in line:
            assert line["t"] == number
        number += line.get("number", 1)


@pytest.mark.parametrize("space", [0, 40])
def test_a_recorder_continues_a_file_that_began_on_a_full_disk(tmp_path: Path, space: int) -> None:
    path = tmp_path / "line.jsonl"
    record(path, space)
    with Recorder(path) as recorder:
        recorder.begin("sim:?seed=2", 0.0)
    assert good_lines(path.read_bytes())[-1]["recorded"] == "sim:?seed=2"
