"""The session against the model, in virtual time and without an event loop.

The driver follows the session's two rules. It may stall: then bytes are read later than they arrived, with a correct
`not_before`.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.protocol.session_driver import LINK_TIMEOUT, TIMEOUT, Driver, Flapping, OwnRead, settings_number
from tests.protocol.session_model import A0, AA, AD, HEALTHY, Controller, Fate, Sent
from tracer_async import LinkClosedError, LinkError, LoadState
from tracer_async.protocol import SYNC, Frame, ManualControl, ReadRealtime, SessionOptions

# Maximum time of one request without interference, whatever the controller does: each of 3 attempts to switch the load
# is followed by 3 attempts to read, each with a timeout that is extended once, a fence and pauses.
LONGEST = 60.0


delays = st.sampled_from([1 / 64, 1 / 32, 1 / 8, 1 / 4, 3 / 4, 1.0, 5 / 4, 3.0, 6.0])
copies = st.lists(st.sampled_from([1 / 64, 1 / 16, 1 / 8, 15 / 64]), min_size=1, max_size=2).map(
    lambda after: tuple(sorted(after))
)
fates = st.one_of(
    st.just(HEALTHY),
    st.builds(Fate, request_delay=delays, reply_delay=delays.filter(lambda delay: delay >= 1 / 32)),
    st.builds(Fate, reply_delay=delays.filter(lambda delay: delay >= 1 / 32), copies=copies, echo_copies=copies),
    st.builds(Fate, request_lost=st.booleans(), reply_lost=st.just(True)),
    st.just(Fate(reply_damaged=True)),
    st.builds(
        Fate, pause=st.sampled_from([1 / 16, 1 / 8, 3 / 8, 7 / 8]), reply_delay=st.sampled_from([1 / 32, 15 / 16])
    ),
)
seconds = st.sampled_from([1 / 64, 1 / 16, 1 / 8, 1 / 4, 3 / 4, 1.0, 2.0, 4.0, 12.0])
pauses = st.sampled_from([0.0, 1 / 64, 1 / 16, 1 / 8, 1 / 4, 1.0, 2.0])
loads = st.sampled_from(LoadState)
flapping = st.builds(
    Flapping,
    after_connect=st.sampled_from([None, 1 / 16, 3 / 16, 3 / 4]),
    after_reply=st.sampled_from([None, 0.0, 1 / 64, 1 / 8]),
    back_after=st.sampled_from([1 / 64, 3 / 8, 4.0]),
    keeps=st.booleans(),
    greeting=st.sampled_from([b"", SYNC[:5], SYNC + b"\x00\xa0\x18", None]),
)
reads = st.sampled_from(["read", "joined read", "own read"])
commands = st.sampled_from(["execute", "switch", "write"])


class Conversation(RuleBasedStateMachine):
    """Any sequence of events from callers, the connection, the controller and stalls of the application."""

    driver: Driver

    @initialize(
        retries=st.integers(0, 2),
        fence=st.sampled_from([0.0, 0.5, 1.5]),
        max_timeouts=st.sampled_from([None, 3]),
        start_up=st.booleans(),
        copies_id=st.booleans(),
        echoes=st.sampled_from([False, False, True]),
        chunk=st.sampled_from([1, 7, 4096]),
        earlier=st.lists(st.sampled_from([AA, AD]), max_size=2),
        closes=st.sampled_from([False, False, False, True]),
        flapping=st.one_of(st.none(), st.none(), flapping),
    )
    def begin(
        self,
        *,
        retries: int,
        fence: float,
        max_timeouts: int | None,
        start_up: bool,
        copies_id: bool,
        echoes: bool,
        chunk: int,
        earlier: list[int],
        closes: bool,
        flapping: Flapping | None,
    ) -> None:
        options = SessionOptions(
            name="sim:",
            retries=retries,
            fence=fence,
            timeout=TIMEOUT,
            link_timeout=LINK_TIMEOUT,
            max_timeouts=max_timeouts,
            start_up=start_up,
        )
        self.driver = Driver(options, Controller(copies_id=copies_id), echoes=echoes)
        self.driver.chunk = chunk
        self.closes = closes
        self.stalled = False
        self.number = 0
        # Commands of another program. Their replies arrive after this program has connected.
        self.driver.connect()
        self.driver.wire.echoes = False
        for command in earlier:
            frame = Frame(0x16, command, b"\x01" if command == AA else bytes(7))
            self.driver.wire.send(Sent(frame, self.driver.now, Fate(request_delay=1 / 8, reply_delay=1 / 2)))
        self.driver.wire.echoes = echoes
        self.driver.flapping = flapping

    def go_on(self, after: float) -> None:
        """Let the driver run for some time, or not at all if the application is stalled."""
        if after or not self.stalled:
            self.stalled = False
            self.driver.advance(after)

    # Callers

    def ask(self, what: str, load: LoadState) -> None:
        driver = self.driver
        self.number += 1
        if len(driver.outstanding) >= 6:
            return
        if what == "execute":
            driver.post(ManualControl(load))
        elif what == "switch":
            driver.switch(load)
        elif what == "write":
            driver.post(settings_number(self.number))
        else:
            driver.post(OwnRead(self.number) if what == "own read" else ReadRealtime(), join=what == "joined read")

    @rule(what=reads, after=pauses)
    def somebody_reads(self, what: str, after: float) -> None:
        self.ask(what, LoadState.ON)
        self.go_on(after)

    @rule(what=commands, load=loads, after=pauses)
    def somebody_commands(self, what: str, load: LoadState, after: float) -> None:
        self.ask(what, load)
        self.go_on(after)

    @rule(asked=st.lists(st.tuples(reads | commands, loads), min_size=1, max_size=4), after=pauses)
    def several_ask_at_once(self, asked: list[tuple[str, LoadState]], after: float) -> None:
        self.all_ask(asked, after)

    def all_ask(self, asked: list[tuple[str, LoadState]], after: float) -> None:
        for what, load in asked:
            self.ask(what, load)
        self.go_on(after)

    @rule(
        coming=st.lists(fates, min_size=1, max_size=4),
        asked=st.lists(st.tuples(reads | commands, loads), max_size=2),
        after=pauses,
    )
    def the_next_requests_fare_so(self, coming: list[Fate], asked: list[tuple[str, LoadState]], after: float) -> None:
        self.driver.fates += coming
        self.all_ask(asked, after)

    @precondition(lambda self: self.driver.outstanding)
    @rule(which=st.integers(0, 5), after=pauses)
    def somebody_cancels(self, which: int, after: float) -> None:
        outstanding = self.driver.outstanding
        self.driver.cancel(outstanding[which % len(outstanding)])
        self.go_on(after)

    # Controller and wire

    @rule(refuses=st.booleans(), load=st.none() | st.booleans())
    def the_controller_changes(self, *, refuses: bool, load: bool | None) -> None:
        """The controller starts or stops refusing to switch; something else switches the load."""
        self.driver.controller.refuses = refuses
        if load is not None:
            self.driver.controller.set_load(load, self.driver.now)

    # A frame that looks like the answer to the request in flight is indistinguishable from the answer.
    @precondition(lambda self: self.driver.wire.up and self.driver.wire.idle and self.driver.flight_is_over)
    @rule(command=st.sampled_from([A0, AA, AD]), after=pauses)
    def another_masters_reply_comes(self, command: int, after: float) -> None:
        driver = self.driver
        frame = driver.controller.reading(driver.now)
        if command != A0:
            frame = Frame(0x00, command, bytes([driver.controller.load]) if command == AA else b"")
        driver.wire.put_foreign(frame, driver.now)
        driver.wire.process(driver.now)
        self.go_on(after)

    @precondition(lambda self: self.driver.wire.up and self.driver.wire.half_arrived(self.driver.now) is None)
    @rule(raw=st.sampled_from([b"Welcome\r\n", SYNC + b"\x00\xa0\xc8", SYNC[:5], SYNC + b"\x00\xa0"]), after=pauses)
    def other_bytes_come(self, raw: bytes, after: float) -> None:
        self.driver.wire.put_bytes(raw, self.driver.now)
        self.driver.wire.process(self.driver.now)
        self.go_on(after)

    # The connection

    @precondition(lambda self: self.driver.wire.up)
    @rule(
        keeps=st.booleans(),
        cause=st.sampled_from([None, OSError("reset"), LinkError("sim:", "unplugged")]),
        failed=st.booleans(),
        down=st.sampled_from([None, 0.0, 1 / 8, 1.0, 7.0]),
        after=pauses,
    )
    def the_connection_is_lost(
        self, *, keeps: bool, cause: Exception | None, failed: bool, down: float | None, after: float
    ) -> None:
        self.driver.disconnect(cause, keeps=keeps)
        if failed:
            self.driver.session.note_down(LinkError("sim:", "refused"))
        if down is not None:
            self.go_on(down)
            if not self.driver.wire.up:
                self.driver.connect()
        self.go_on(after)

    @precondition(lambda self: not self.driver.wire.up)
    @rule(after=pauses)
    def the_connection_is_back(self, after: float) -> None:
        self.driver.connect()
        self.go_on(after)

    # Time

    @rule(seconds=seconds)
    def time_passes(self, seconds: float) -> None:
        self.go_on(seconds)

    @rule(seconds=seconds)
    def the_application_stalls(self, seconds: float) -> None:
        self.stalled = True
        self.driver.stall(seconds)

    @invariant()
    def nothing_waits_longer_than_the_link_timeout_without_a_connection(self) -> None:
        driver = getattr(self, "driver", None)
        if (
            driver is not None
            and not self.stalled
            and not driver.wire.up
            and driver.now >= driver.down_since + LINK_TIMEOUT
        ):
            assert all(posted.request.queued_at > driver.now - LINK_TIMEOUT for posted in driver.outstanding)

    def teardown(self) -> None:
        driver = getattr(self, "driver", None)
        if driver is None:
            return
        if self.closes:
            self.close()
            return
        if not driver.wire.up:
            driver.connect()
        driver.advance(LONGEST * (1 + len(driver.outstanding)))
        if not driver.wire.up:  # given up after timeouts
            driver.advance(LINK_TIMEOUT)
        assert not driver.outstanding, "a request does not end"
        assert driver.session.stats.frames == driver.frames

    def close(self) -> None:
        driver = self.driver
        driver.close()
        for _ in range(2):
            assert driver.session.next_request(driver.now) is None
            assert not driver.session.data_to_send(driver.now)
            assert all(isinstance(event, Frame) for event in driver.session.tick(driver.now + 100))
            assert driver.session.deadline(driver.now + 100) is None
            with pytest.raises(LinkClosedError):
                driver.post(ReadRealtime())
            with pytest.raises(LinkClosedError):
                driver.switch(LoadState.ON)
            driver.session.link_up(driver.now + 100)
            driver.now += 200


TestConversation = Conversation.TestCase
