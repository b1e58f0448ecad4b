"""The energy totals of all controllers.

Totals are handed out only when they are on the disk, so nothing that was published is lost by a crash. The file is
written in a thread of its own: a slow disk delays neither the polling nor the outputs.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import tzinfo
from pathlib import Path

from tracer_async import Reading
from tracer_async.gateway.energy import EnergyMeter, MeterState
from tracer_async.gateway.energy_file import EnergyFile
from tracer_async.gateway.events import Controller, EnergyTotals
from tracer_async.gateway.output import OutputState

__all__ = ["EnergyLedger"]

_log = logging.getLogger(__name__)


class EnergyLedger:
    """Counts energy, and hands out only totals that are on the disk.

    Call `load` once, let `run` run, and call `aclose` at the end. *zone* says when a day begins; None is the zone of
    the machine. Totals of controllers that are not configured any more stay in the file.
    """

    def __init__(self, file: Path, *, zone: tzinfo | None, flush_seconds: float) -> None:
        self.state: OutputState = OutputState("energy")
        """Whether the totals can be written, and why not. `delivered` counts the readings whose energy is on disk."""
        self._path = file
        self._file = EnergyFile(file)
        self._zone = zone
        self._flush_seconds = flush_seconds
        self._meters: dict[str, EnergyMeter] = {}
        self._stored: dict[str, MeterState] = {}
        # Readings that were counted since the last flush began.
        self._new = 0
        self._flushing = asyncio.Lock()
        self._flushes: set[asyncio.Task[None]] = set()
        # Not the event loop's own executor: calls that hang there must not delay the totals.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="energy")

    def load(self) -> None:
        """Read the file, before the first reading is recorded. Blocking.

        A damaged file is no error: it gets another name, which is logged as an error, and its second copy is used,
        which holds the same totals. Raises BlockingIOError if another process uses the file.
        """
        self._stored = self._file.open()
        self._meters.clear()

    def record(self, controller: Controller, reading: Reading, monotonic: float) -> None:
        """Count a reading, which arrived at *monotonic*, or an error instead of one. Never raises."""
        meter = self._meters.get(controller.id)
        if meter is None:
            meter = self._meters[controller.id] = EnergyMeter(self._zone, self._stored.get(controller.id))
        meter.record(reading, monotonic, controller.interval)
        self._new += 1

    def stored(self, controller_id: str) -> EnergyTotals:
        """Return the totals of a controller that are on the disk."""
        state = self._stored.get(controller_id)
        return EnergyTotals() if state is None else state.totals()

    async def run(self) -> None:
        """Write the totals to the file from time to time, until cancelled. Errors are in `state`."""
        while True:
            # At once for the first time: a directory that cannot be written to is reported at the start.
            await self.flush()
            await asyncio.sleep(self._flush_seconds)

    async def flush(self) -> None:
        """Write the totals to the file now, if there is something new. Errors are in `state`.

        If the caller is cancelled, the totals are written nevertheless.
        """
        # A task of its own: a cancelled caller must not let two threads write at the same time.
        task = asyncio.create_task(self._flush(), name="gateway energy flush")
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)
        await asyncio.shield(task)

    async def aclose(self) -> None:
        """Write the totals for the last time, and release the file."""
        try:
            await self.flush()
        finally:
            self._thread.shutdown(wait=False)
            self._file.close()

    async def _flush(self) -> None:
        async with self._flushing:
            if self.state.connected and not self._new:
                return
            new, self._new = self._new, 0
            states = self._stored | {controller_id: meter.state for controller_id, meter in self._meters.items()}
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._file.save, states)
            except Exception as error:  # noqa: BLE001  # whatever happens, the next attempt may succeed
                self._new += new
                reason = (isinstance(error, OSError) and error.strerror) or repr(error)
                if self.state.fails(reason):
                    _log.error(
                        "energy: %s cannot be written (%s); counting goes on, next attempt in %g s",
                        self._path,
                        reason,
                        self._flush_seconds,
                    )
                return
            if self.state.error is not None:
                _log.info("energy: %s can be written again", self._path)
            self._stored = states
            self.state.delivered += new
            self.state.works()
