"""Soak: a million exchanges on faulty lines. Each answer is compared with what the controller did and when.

``make soak``, or ``python -m stress.soak [--exchanges N] [--shards N] [--seed N]``.

Clients talk to simulated controllers over TCP and pseudo-terminals, on a clock that runs `SCALE` times as fast as real
time: a timeout of 1 s takes 1/`SCALE` s. The lines have every fault of the simulator, adapters that echo, bridges that
deliver twice, and outages. The application blocks its event loop for 10 ms to 12 s, and sends several load and settings
commands at once. The controllers run in a separate process, so they continue during such a stall. The last shard has
four event loops in four threads.

``stress/judge.py`` defines what counts as wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

from stress.clients import Squad, Tally
from stress.clock import SCALE, FastLoop, make_wall_clock_fast
from stress.judge import Claim, Deed, Verdict, judge_claims

CLIENTS = 60
LOOPS_OF_LAST_SHARD = 4

# How much the memory of a process may grow from a third of the way to the end, in bytes.
_MOST_GROWTH = 2_000_000


class Controllers:
    """The process with the controllers of one shard."""

    def __init__(self, count: int, seed: int, log: Path) -> None:
        command = [sys.executable, "-m", "stress.serving", f"--count={count}", f"--seed={seed}", f"--log={log}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.urls: list[str] = self._listen()

    def _listen(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def heal(self) -> None:
        """End all faults."""
        assert self._process.stdin is not None
        print("heal", file=self._process.stdin, flush=True)
        self._listen()

    def end(self) -> tuple[dict[str, int], list[str]]:
        """End the process; return the number of injected faults of each kind, and what was sent too late."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        counts, late = self._listen()
        self._process.wait()
        return counts, late


def run_shard(exchanges: int, seed: int, loops: int, directory: Path) -> None:
    """Run the share of one process; write its results to *directory*."""
    logging.disable()  # of lost links there are thousands
    make_wall_clock_fast()
    controllers = Controllers(CLIENTS, seed, directory / "deeds")
    barrier = Barrier(loops, controllers.heal)
    tallies = [Tally() for _ in range(loops)]
    each = CLIENTS // loops

    def run_loop(number: int) -> None:
        urls = dict(list(enumerate(controllers.urls))[number * each : (number + 1) * each])
        tally = tallies[number]
        try:
            with (
                (directory / f"claims-{number}").open("w", encoding="ascii") as claims,
                asyncio.Runner(loop_factory=FastLoop) as runner,
            ):
                squad = Squad(urls, seed, -(-exchanges // loops), claims, tally)
                runner.run(squad.run(barrier.wait, watch=number == 0))
        except BaseException:  # noqa: BLE001  # any error other than a TracerError is wrong
            tally.wrong.append(traceback.format_exc())
            barrier.abort()

    threads = [Thread(target=run_loop, args=(number,), daemon=True) for number in range(loops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts, late = controllers.end()
    json.dump({"counts": counts, "late": late, "tallies": [vars(tally) for tally in tallies]}, sys.stdout)


def lines_of(path: Path) -> Iterator[list[Any]]:
    """Return the JSON values in a file, one in a line."""
    with path.open(encoding="ascii") as lines:
        for line in lines:
            yield json.loads(line)


def judge(directory: Path) -> Verdict:
    """Judge the claims of one shard."""
    claims = [Claim(*values) for path in sorted(directory.glob("claims-*")) for values in lines_of(path)]
    deeds = [Deed(*values) for values in lines_of(directory / "deeds")]
    return judge_claims(claims, deeds)


def report(
    tallies: list[Tally], verdicts: list[Verdict], counts: Counter[str], late: list[str], seconds: float
) -> bool:
    """Print the results of all shards; return whether all of them passed."""
    outcomes = sum((tally.outcomes for tally in tallies), Counter[str]())
    outcomes += sum((verdict.right for verdict in verdicts), Counter[str]())
    wrong = [text for tally in tallies for text in tally.wrong]
    wrong += [text for verdict in verdicts for text in verdict.wrong]
    requests = sum(tally.requests for tally in tallies)
    print(f"{'exchanges':<60} {requests:>9,} in {seconds:.0f} s, on a clock {SCALE:g} times as fast as real time")
    for name, count in sorted(outcomes.items(), key=lambda item: -item[1]):
        print(f"{name:<60} {count:>9,}")
    print(f"{'WRONG':<60} {len(wrong):>9,}")
    print(f"{'replies and copies handed over too late by the controllers':<60} {len(late):>9,}")
    print(f"{'links established':<60} {sum(tally.links for tally in tallies):>9,}")
    print("injected:", ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items())))
    watched = [tally for tally in tallies if len(tally.memory) == 2]
    for number, tally in enumerate(watched):
        first, last = (size / 1e6 for size in tally.memory)
        objects = f"{tally.objects[0]:,} to {tally.objects[1]:,} objects"
        print(f"memory of process {number}  {first:.2f} MB after a third, {last:.2f} MB at the end; {objects}")
    print(f"load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")
    for text in late[:40]:
        print("beyond the promise:", text)
    for text in wrong[:40]:
        print("WRONG:", text)
    return not wrong and all(tally.memory[1] - tally.memory[0] < _MOST_GROWTH for tally in watched)


def run_shards(exchanges: int, shards: int, seed: int, directory: Path) -> bool:
    """Run all shards at the same time, judge and report."""
    begun = time.monotonic()
    processes = []
    for number in range(shards):
        place = directory / str(number)
        place.mkdir()
        loops = LOOPS_OF_LAST_SHARD if number == shards - 1 else 1
        share = [f"--exchanges={-(-exchanges // shards)}", f"--seed={seed + 100 * number}"]
        shard = [f"--loops={loops}", f"--directory={place}"]
        command = [sys.executable, "-m", "stress.soak", *share, *shard]
        processes.append((place, subprocess.Popen(command, stdout=subprocess.PIPE)))
    tallies, verdicts, counts, late = [], [], Counter[str](), []
    for place, process in processes:
        values = json.loads(process.communicate()[0])
        counts.update(values["counts"])
        late += values["late"]
        tallies += [Tally(**tally | {"outcomes": Counter(tally["outcomes"])}) for tally in values["tallies"]]
        verdicts.append(judge(place))
    return report(tallies, verdicts, counts, late, time.monotonic() - begun)


def main() -> int:
    """Share the work among processes."""
    parser = argparse.ArgumentParser(prog="python -m stress.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--exchanges", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=max(2, (os.cpu_count() or 1) // 2))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loops", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loops:
        run_shard(options.exchanges, options.seed, options.loops, options.directory)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        return 0 if run_shards(options.exchanges, options.shards, options.seed, Path(directory)) else 1


if __name__ == "__main__":
    sys.exit(main())
