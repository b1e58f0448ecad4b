"""Writes a recording while a client works.

The event loop never waits for the disk: it puts records into a queue, and a thread writes them. What is in the queue
for half a second is written, so a crash of the process loses at most the last second. If the disk is full or hangs,
records are dropped, and the recording says how many.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Self

from tracer_async import __version__
from tracer_async.capture._json_lines import Burst, LinkChange, MissingRecords, Record, RecordingHeader, to_line
from tracer_async.errors import CaptureError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Recorder"]

_log = logging.getLogger("tracer_async.capture")

# Seconds for which records are collected before they are written.
_COLLECT = 0.5

# Maximum seconds to wait for the disk when the program ends.
_AT_EXIT = 5.0

# Limit for the queue, in bytes of the records in memory. At 9600 baud it is full after hours.
_MAX_QUEUED = 16 << 20
_RECORD_SIZE = 300


class Recorder:
    """Records what one client sends and receives: ``TracerClient(url, recorder=Recorder("line.jsonl"))``.

    The client closes it. An existing recording is continued, with another header. The methods may be called from any
    thread, and none of them except `close` waits for the disk. Raises OSError if the file cannot be opened,
    CaptureError if it exists and is not a recording.

    :param path: The file to write.
    :param fsync: Whether each write waits until the disk has the data, so that even a power failure loses only the last
        second. Without it, only a crash of the process loses so little. It wears out SD cards.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = False) -> None:
        self.path: Path = Path(path)
        self._fsync = fsync
        self._process = os.getpid()
        self._lock = Lock()
        self._queue: list[Record] = []
        self._queued = 0
        self._dropped = 0
        self._started_at = 0.0
        self._begun = False
        self._waiting = Event()
        self._ended = Event()
        self._written = Event()
        self._failing = False
        # Opened now, so that a wrong path is an error before anything is recorded. Unbuffered: `_write` collects.
        self._file = self.path.open("ab", buffering=0)
        try:
            # A crash may have torn the last line.
            self._torn = _is_torn(self.path)
        except BaseException:
            self._file.close()
            raise

    def __repr__(self) -> str:
        return f"<Recorder {self.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, recorded: str, now: float, *, timeout: float | None = None, kind: str = "client") -> None:
        """Write the header. *recorded* is what is recorded, *now* the time of the same clock as all later calls.

        Raises RuntimeError if the recorder has begun before, or is closed: a recording has one line.
        """
        with self._lock:
            if self._begun or self._ended.is_set():
                raise RuntimeError(f"{self.path}: a Recorder records one client, once: create another one")
            self._begun = True
            self._started_at = now
        started = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._put(RecordingHeader(recorded, kind, started, f"tracer-async {__version__}", timeout))
        # A program may end without closing its client. A disk that hangs must not prevent that.
        atexit.register(self.close, _AT_EXIT)
        Thread(target=self._run, name=f"tracer_async recorder {self.path}", daemon=True).start()

    def record(self, sender: str, data: bytes | memoryview, now: float, wall: float | None = None) -> None:
        """Record bytes that *sender*, ``client`` or ``controller``, has sent.

        *wall* is when, in seconds since 1970, UTC. Without it, that is the present time.
        """
        self._put(Burst(sender, bytes(data), now - self._started_at, time.time() if wall is None else wall))

    def record_link(self, now: float, *, up: bool, by_client: bool = False, cause: str = "") -> None:
        """Record that the connection was established, or lost."""
        self._put(LinkChange(up, now - self._started_at, time.time(), by_client, cause))

    def end(self) -> None:
        """Record nothing more. The thread writes what is queued, and closes the file."""
        self._ended.set()
        self._waiting.set()
        if not self._begun and not self._written.is_set():
            self._file.close()
            self._written.set()

    def close(self, timeout: float | None = None) -> None:
        """End, and wait until everything is written, at most *timeout* seconds. May be called again.

        In a forked process it does nothing: the file belongs to the parent, and the thread does not exist there.
        """
        if os.getpid() != self._process:
            return
        self.end()
        if self._written.wait(timeout):
            atexit.unregister(self.close)

    def _put(self, record: Record) -> None:
        size = _RECORD_SIZE + (len(record.data) if isinstance(record, Burst) else 0)
        with self._lock:
            if self._ended.is_set() or not self._begun:
                return
            if self._queued + size > _MAX_QUEUED:
                self._dropped += 1
                return
            self._queued += size
            self._queue.append(record)
        if not self._waiting.is_set():
            self._waiting.set()

    # In the thread.

    def _run(self) -> None:
        with self._file:
            while not self._ended.is_set():
                self._waiting.wait()
                self._ended.wait(_COLLECT)
                self._waiting.clear()
                self._write()
            self._write()
        self._written.set()

    def _write(self) -> None:
        with self._lock:
            records, self._queue = self._queue, []
            dropped, self._dropped = self._dropped, 0
            self._queued = 0
        if dropped:
            t = next((record.t for record in reversed(records) if isinstance(record, Burst | LinkChange)), None)
            records.append(MissingRecords(dropped, t or 0.0, time.time()))
        if not records:
            return
        text = b"".join(map(to_line, records))
        try:
            self._write_all(b"\n" + text if self._torn else text)
            if self._fsync:
                os.fsync(self._file.fileno())
        except OSError as error:
            with self._lock:
                self._dropped += dropped + len(records)
            if not self._failing:
                _log.warning("%s: cannot write the recording (%s), trying again", self.path, error.strerror or error)
            self._failing = True
        else:
            if self._failing:
                _log.warning("%s: the recording is written again", self.path)
            self._failing = False

    def _write_all(self, text: bytes) -> None:
        while text:
            self._torn = True  # until all of it is written
            text = text[self._file.write(text) or 0 :]
        self._torn = False


def _is_torn(path: Path) -> bool:
    """Return whether the last line of a file has no end. Raises CaptureError unless it is empty or has JSON lines."""
    if not path.is_file():  # a pipe or a device
        return False
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(0)
        if file.read(1) != b"{":
            raise CaptureError(f"{path}: this file is not a recording. Choose another one")
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
