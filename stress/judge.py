"""Compare what the clients claim with what the controllers did, and report what is wrong. Pure.

It shares no code with the library. A reading carries the stamp of the controller that made it. Everything else is
compared with the controllers' log. All times are in seconds of the fast clock, which all processes share.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from stress.stamp import STEP, Stamp

__all__ = ["OK", "Claim", "Deed", "Verdict", "judge_claims", "judge_reading"]

OK = "ok"

# Seconds: a stamp is rounded down, and the times of a reading are differences of times.
_TOLERANCE = STEP + 1e-6


class Claim(NamedTuple):
    """The outcome of a call to the library."""

    controller: int
    what: str
    """``switch`` (set_load), ``load`` (execute(ManualControl(...))) or ``settings`` (write_settings)."""
    data: str
    """The data bytes of its command, in hex."""
    called: float
    returned: float
    outcome: str
    """`OK`, the value returned by ``load``, "cancelled", or the name of the error."""


class Deed(NamedTuple):
    """What a controller did."""

    controller: int
    time: float
    what: str
    """``switch``, ``settings``, or ``load is`` for a load that was in that state, or changed to it, without one."""
    data: str
    load: bool
    """The state of the load afterwards."""


class Verdict(NamedTuple):
    """The result of checking the claims."""

    right: Counter[str]
    wrong: list[str]


def judge_reading(controller: int, stamp: Stamp | None, time: float, age: float) -> str | None:
    """Return what is wrong with a reading that claims to have been made within *age* seconds before *time*."""
    if stamp is None:
        return f"controller {controller}: a reading that was never made"
    if stamp.controller != controller:
        return f"controller {controller}: a reading that controller {stamp.controller} made"
    if stamp.made < time - age - _TOLERANCE:
        early = time - age - stamp.made
        return f"controller {controller}: a reading made {early:.4f} s before it claims, age {age:.4f}, at {time:.3f}"
    if stamp.made > time + _TOLERANCE:
        return f"controller {controller}: a reading made {stamp.made - time:.4f} s after it claims, at {time:.3f}"
    return None


def judge_claims(claims: Iterable[Claim], deeds: Iterable[Deed]) -> Verdict:
    """Compare what the clients claim with what the controllers did."""
    histories: defaultdict[int, _History] = defaultdict(_History)
    for deed in deeds:
        histories[deed.controller].add(deed)
    verdict = Verdict(Counter(), [])
    written: Counter[tuple[int, str]] = Counter()
    for claim in claims:
        history = histories[claim.controller]
        if claim.what == "settings":
            written[claim.controller, claim.data] += 1
        wrong = history.objection(claim)
        if wrong is not None:
            verdict.wrong.append(f"{wrong}: {claim}")
        elif claim.outcome in (OK, "0", "1", "LoadRefusedError"):
            verdict.right[f"right: {claim.what}{' refused' if claim.outcome == 'LoadRefusedError' else ''}"] += 1
    for controller, history in histories.items():
        for data, times in history.settings.items():
            if len(times) > written[controller, data]:
                wrong = f"settings written {written[controller, data]} times and executed {len(times)} times"
                verdict.wrong.append(f"{wrong}: controller {controller}, {data} at {times}")
    return verdict


class _History:
    """What one controller did, in order."""

    def __init__(self) -> None:
        self.settings: defaultdict[str, list[float]] = defaultdict(list)
        self._times: list[float] = []
        self._deeds: list[Deed] = []

    def add(self, deed: Deed) -> None:
        self._times.append(deed.time)
        self._deeds.append(deed)
        if deed.what == "settings":
            self.settings[deed.data].append(deed.time)

    def objection(self, claim: Claim) -> str | None:
        """Return what is wrong with a claim."""
        begin, end = bisect_right(self._times, claim.called), bisect_right(self._times, claim.returned)
        done = self._deeds[begin:end]
        wanted = claim.data == "01"
        switched = [deed.load for deed in done if deed.what == "switch" and deed.data == claim.data]
        if claim.what == "switch" and claim.outcome == OK:
            before = self._deeds[begin - 1].load if begin else None
            if wanted not in (before, *(deed.load for deed in done)):
                return "said to be switched, and was not so at any moment"
        elif claim.what == "switch" and claim.outcome == "LoadRefusedError":
            if all(load == wanted for load in switched):
                return "said to be refused, and no answer refused it"
        elif claim.what == "load" and claim.outcome in ("0", "1"):
            if (claim.outcome == "1") not in switched:
                return "an answer that the controller did not give"
        elif (
            claim.what == "settings"
            and claim.outcome == OK
            and not any(deed.what == "settings" and deed.data == claim.data for deed in done)
        ):
            return "said to be written, and not executed"
        return None
