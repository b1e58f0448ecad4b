"""Writes a recording while a client works.

The event loop never waits for the disk: it puts records into a queue, and a thread writes them. What is in the queue
for half a second is written, so a crash of the process loses at most the last second. If the disk is full or hangs,
records are dropped, and the recording says how many.

A signal handler may interrupt any method at any moment and call `close`. So the methods share no lock with the thread,
and use no `Event` and no `Thread.join`: the handler would wait for a lock that the interrupted method holds.
"""

from __future__ import annotations

import atexit
import os
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, RLock, Thread
from typing import TYPE_CHECKING, Self

from tracer_async import __version__
from tracer_async.capture._json_lines import Burst, LinkChange, Record, RecordingHeader
from tracer_async.capture._recording_file import RecordingFile

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Recorder"]

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
        self._process = os.getpid()
        # For the threads that call the methods.
        self._lock = RLock()
        self._started_at = 0.0
        self._begun = False
        self._ended = False
        self._has_thread = False
        # The records, and None at the end. Both queues are reentrant.
        self._queue: SimpleQueue[Record | None] = SimpleQueue()
        self._end: SimpleQueue[None] = SimpleQueue()
        # Counted from the beginning. The first two belong to the callers, the other ones to the thread.
        self._given_size = 0
        self._dropped = 0
        self._taken_size = 0
        self._counted = 0
        # The lock is held from the beginning until everything is written.
        self._writing = Lock()
        self._written = False
        # Opened now, so that a wrong path is an error before anything is recorded.
        self._file = RecordingFile(self.path, fsync=fsync)

    def __repr__(self) -> str:
        return f"<Recorder {self.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def missing(self) -> int:
        """Number of records that could not be written, because the disk was full or too slow. Final after `close`."""
        return self._file.lost

    def begin(self, recorded: str, now: float, *, timeout: float | None = None, kind: str = "client") -> None:
        """Write the header. *recorded* is what is recorded, *now* the time of the same clock as all later calls.

        Raises RuntimeError if the recorder has begun before, or is closed: a recording has one line.
        """
        started = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._lock:
            if self._begun or self._ended:
                raise RuntimeError(f"{self.path}: a Recorder records one client, once: create another one")
            self._started_at = now
            self._file.begin(RecordingHeader(recorded, kind, started, f"tracer-async {__version__}", timeout))
            self._begun = True
        if self._written:
            return  # a signal handler has closed it just now
        self._writing.acquire()
        # A program may end without closing its client. A disk that hangs must not prevent that.
        atexit.register(self.close, _AT_EXIT)
        Thread(target=self._run, name=f"tracer_async recorder {self.path}", daemon=True).start()
        # Not earlier: `close` in a signal handler must not wait for a thread that starts after it.
        self._has_thread = True

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
        with self._lock:
            self._ended = True
            # In this order: the thread looks for the None after it has the end.
            self._queue.put(None)
            self._end.put(None)
        if not self._begun:
            self._file.close()
            self._written = True

    def close(self, timeout: float | None = None) -> None:
        """End, and wait until everything is written, at most *timeout* seconds. May be called again.

        In a forked process it does nothing: the file belongs to the parent, and the thread does not exist there.
        """
        if os.getpid() != self._process:
            return
        self.end()
        limit = -1 if timeout is None else max(0.0, timeout)
        if self._has_thread and not self._written and self._writing.acquire(timeout=limit):
            self._writing.release()
        if self._written:
            atexit.unregister(self.close)

    def _put(self, record: Record) -> None:
        size = _size_of(record)
        with self._lock:
            if self._ended or not self._begun:
                return
            if self._given_size + size - self._taken_size > _MAX_QUEUED:
                self._dropped += 1
                return
            self._given_size += size
            self._queue.put(record)

    # In the thread.

    def _run(self) -> None:
        try:
            with closing(self._file) as file:
                file.write([], 0)  # the header
                is_last = False
                while not is_last:
                    records, is_last = self._collect()
                    counted, self._counted = self._counted, self._dropped
                    file.write(records, self._counted - counted)
        finally:
            self._written = True
            self._writing.release()

    def _collect(self) -> tuple[list[Record], bool]:
        """Wait for records. Return those of half a second, and whether they are the last ones."""
        records: list[Record] = []
        record = self._queue.get()
        with suppress(Empty):
            self._end.get(timeout=_COLLECT)
        with suppress(Empty):
            while record is not None:
                records.append(record)
                record = self._queue.get_nowait()
        self._taken_size += sum(map(_size_of, records))
        return records, record is None


def _size_of(record: Record) -> int:
    return _RECORD_SIZE + (len(record.data) if isinstance(record, Burst) else 0)
