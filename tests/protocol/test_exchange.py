"""The exchange against a model: a controller that answers each request at most once, in order, at any time."""

from collections import deque
from copy import deepcopy
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tracer_async.protocol import DUPLICATE_WINDOW, DUPLICATING_LINE_PERIOD, LATE_REPLY_WINDOW, Exchange, Frame, Match

A0, AA, AD = 0xA0, 0xAA, 0xAD
TIMEOUT = 1.0
FENCE = 1.5


def request(command: int, data: bytes = b"\x01") -> Frame:
    return Frame(0x16, command, b"" if command == A0 else data)


def reply(command: int, data: bytes = b"\x01") -> Frame:
    """A reply, which differs from its request in the ID, as in all captures."""
    return Frame(0x00, command, {A0: bytes(24), AD: b""}.get(command, data))


def receive(exchange: Exchange, command: int, now: float, not_before: float | None = None) -> Match:
    return exchange.receive(reply(command), now, now if not_before is None else not_before)


def start(exchange: Exchange, command: int, now: float) -> None:
    exchange.start(request(command), now, TIMEOUT)


def is_free(exchange: Exchange, now: float) -> bool:
    """Whether a session would send a request now."""
    return not exchange.in_flight and now >= exchange.free_at


def abandoned(command: int = A0) -> Exchange:
    exchange = Exchange(FENCE)
    start(exchange, command, 0.0)
    exchange.abandon(1.0)
    return exchange


def is_ambiguous(exchange: Exchange, command: int, now: float) -> bool:
    """Whether the next answer to *command* would be ambiguous; leaves *exchange* as it is."""
    other = deepcopy(exchange)
    now = max(now, other.free_at)
    start(other, command, now)
    assert receive(other, command, now) is Match.ANSWER
    return other.ambiguous


@dataclass(eq=False)
class Sent:
    """A request of the model."""

    command: int
    at: float


class Line(RuleBasedStateMachine):
    """Any order of requests, replies (in time, late, lost, doubled, foreign, read late), timeouts and lost connections.

    The invariant: an answer is the reply to the request in flight, or the exchange says that it may be as old as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.exchange = Exchange(FENCE)
        self.flight: Sent | None = None
        self.unanswered: deque[Sent] = deque()  # at the controller, oldest first
        self.copy: tuple[Sent, float] | None = None  # the last reply, which may come once more
        self.behind: Sent | None = None  # answered by the copy of another reply; its own reply has not arrived
        self.abandoned_at = self.received_at = 0.0

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 0.7, 1.1, 2.0]))
    def time_passes(self, seconds: float) -> None:
        # A reply after the window is outside the protocol's promise.
        self.now += seconds
        while self.unanswered and self.now - self.unanswered[0].at > LATE_REPLY_WINDOW:
            self.unanswered.popleft()
        if self.exchange.deadline is not None and self.now >= self.exchange.deadline:
            self.abandon()

    # Without a pause in which the extra reply is noticed, the next answer is off by one. This cannot be detected.
    @precondition(lambda self: is_free(self.exchange, self.now) and self.behind not in self.unanswered)
    @rule(command=st.sampled_from([A0, AA]))
    def send(self, command: int) -> None:
        start(self.exchange, command, self.now)
        self.flight = Sent(command, self.now)
        self.unanswered.append(self.flight)

    @precondition(lambda self: self.flight is not None)
    @rule()
    def abandon(self) -> None:
        """Timeout, cancellation and a lost connection are the same to the exchange."""
        self.exchange.abandon(self.now)
        self.flight = None
        self.abandoned_at = self.now

    @rule()
    def reconnect(self) -> None:
        if self.flight is not None:
            self.abandon()
        self.exchange.connect(self.now)

    @precondition(lambda self: self.unanswered)
    @rule(lost=st.integers(0, 2), unread_for=st.sampled_from([0.0, 0.1, 0.5]))
    def reply(self, lost: int, unread_for: float) -> None:
        """The controller answers the oldest request, or a later one if replies before it were lost."""
        for _ in range(min(lost, len(self.unanswered) - 1)):
            self.unanswered.popleft()
        sent = self.unanswered.popleft()
        self.receive(sent, unread_for)
        self.copy = sent, self.now

    @precondition(lambda self: self.copy is not None and self.now - self.copy[1] < DUPLICATE_WINDOW)
    @rule(unread_for=st.sampled_from([0.0, 0.3, 5.0]))
    def doubled_reply(self, unread_for: float) -> None:
        """The copy arrives within its window, but may be read much later."""
        assert self.copy is not None
        self.receive(self.copy[0], unread_for)
        self.copy = None

    def receive(self, sent: Sent, unread_for: float) -> None:
        arrived = self.now
        self.now += unread_for
        match = receive(self.exchange, sent.command, self.now, arrived)
        self.received_at = self.now
        if match is Match.ANSWER:
            assert self.flight is not None
            assert sent.command == self.flight.command
            assert self.exchange.since <= sent.at
            assert self.exchange.ambiguous or sent is self.flight
            self.behind = self.flight if sent is not self.flight else None
            self.flight = None
        else:
            assert sent is not self.flight

    @precondition(lambda self: self.unanswered)
    @rule()
    def lose_a_reply(self) -> None:
        self.unanswered.popleft()

    @precondition(lambda self: self.flight is None and not self.unanswered)
    @rule(command=st.sampled_from([A0, AA]))
    def foreign_reply(self, command: int) -> None:
        assert receive(self.exchange, command, self.now) is not Match.ANSWER
        self.received_at = self.now
        self.copy = None  # a bridge that doubles a reply does so before it lets another one through

    @invariant()
    def requests_are_delayed_by_the_fence_and_a_pause_at_most(self) -> None:
        if self.flight is None and self.now >= max(self.abandoned_at + FENCE, self.received_at + DUPLICATE_WINDOW):
            assert is_free(self.exchange, self.now)

    @invariant()
    def there_is_a_deadline_while_a_request_is_in_flight(self) -> None:
        assert (self.exchange.deadline is not None) == (self.flight is not None)
        assert self.exchange.in_flight == (self.flight is not None)


Line.TestCase.settings = settings(max_examples=max(250, settings().max_examples), deadline=None)
TestLine = Line.TestCase


# The fence


def test_nothing_is_sent_before_the_late_reply_or_the_end_of_the_fence() -> None:
    exchange = abandoned()
    assert exchange.free_at == 1.0 + FENCE
    with pytest.raises(RuntimeError, match=r"^a request is in flight, or the fence is up$"):
        start(exchange, A0, 1.1)
    start(exchange, A0, 1.0 + FENCE)


def test_a_second_request_while_one_is_in_flight_is_refused() -> None:
    exchange = Exchange(FENCE)
    start(exchange, A0, 1.0)
    with pytest.raises(RuntimeError, match=r"^a request is in flight"):
        start(exchange, A0, 1.0)


def test_the_deadline_is_the_timeout_after_the_request() -> None:
    exchange = Exchange(FENCE)
    start(exchange, A0, 5.0)
    assert exchange.deadline == 5.0 + TIMEOUT


def test_the_late_reply_lifts_the_fence() -> None:
    exchange = abandoned()
    assert receive(exchange, A0, 1.2) is Match.LATE
    assert is_free(exchange, 1.2)


def test_a_late_reply_leaves_the_fence_of_another_unanswered_request() -> None:
    exchange = abandoned()
    start(exchange, A0, 3.0)
    exchange.abandon(4.0)
    assert receive(exchange, A0, 4.1) is Match.LATE
    assert not is_free(exchange, 4.0 + FENCE - 0.01)
    assert is_free(exchange, 4.0 + FENCE)


def test_abandoning_with_nothing_in_flight_leaves_nothing_unanswered() -> None:
    exchange = Exchange(FENCE)
    exchange.abandon(1.0)
    assert is_free(exchange, 1.0)
    assert not is_ambiguous(exchange, A0, 1.0)


# Which reply answers


def test_a_reply_to_another_command_is_not_an_answer() -> None:
    exchange = Exchange(FENCE)
    start(exchange, A0, 0.0)
    assert receive(exchange, AA, 0.1) is Match.UNSOLICITED
    assert receive(exchange, A0, 0.2) is Match.ANSWER


def test_since_is_not_in_the_future_before_the_first_answer() -> None:
    assert Exchange(FENCE).since <= 0.0


def test_an_answer_that_may_belong_to_an_older_request_is_ambiguous() -> None:
    exchange = abandoned()
    start(exchange, A0, 3.0)
    assert receive(exchange, A0, 3.1) is Match.ANSWER
    assert exchange.ambiguous
    assert exchange.since == 0.0
    # A reply right after it may be its copy, and settles nothing. A later one does.
    assert receive(exchange, A0, 3.2) is Match.LATE
    assert is_ambiguous(exchange, A0, 3.2 + DUPLICATE_WINDOW)
    assert receive(exchange, A0, 3.6) is Match.LATE
    assert not is_ambiguous(exchange, A0, 3.6 + DUPLICATE_WINDOW)


def test_an_answer_right_after_another_may_be_its_copy() -> None:
    exchange = Exchange(FENCE)
    for at in (1.0, 2.0, 2.1):
        start(exchange, A0, at)
        assert receive(exchange, A0, at + 0.05) is Match.ANSWER
        assert exchange.ambiguous is (at == 2.1)
        assert exchange.since == (2.0 if at == 2.1 else at)


def test_an_answer_right_after_a_late_reply_may_be_its_copy() -> None:
    exchange = abandoned()
    assert receive(exchange, A0, 1.2) is Match.LATE
    start(exchange, A0, 1.3)
    assert receive(exchange, A0, 1.3) is Match.ANSWER
    assert exchange.ambiguous
    assert exchange.since == 0.0


def test_a_copy_may_come_after_the_reply_to_another_command() -> None:
    exchange = Exchange(FENCE)
    for command, at in ((A0, 1.0), (AA, 1.1), (A0, 1.2)):
        start(exchange, command, at)
        assert receive(exchange, command, at) is Match.ANSWER
    assert exchange.ambiguous
    assert exchange.since == 1.0


def test_an_answer_to_another_command_settles_unanswered_requests() -> None:
    exchange = abandoned(AA)
    start(exchange, A0, 3.0)
    assert receive(exchange, A0, 3.1) is Match.ANSWER
    assert not exchange.ambiguous
    assert exchange.since == 3.0
    assert not is_ambiguous(exchange, AA, 3.1)


def test_a_late_reply_settles_its_request_and_earlier_ones_only() -> None:
    exchange = Exchange(0.0)
    for command, at in ((AA, 0.0), (A0, 1.0), (A0, 2.0)):
        start(exchange, command, at)
        exchange.abandon(at + 1.0)
    assert receive(exchange, A0, 3.0) is Match.LATE
    assert not is_ambiguous(exchange, AA, 3.0 + DUPLICATE_WINDOW)
    assert is_ambiguous(exchange, A0, 3.0 + DUPLICATE_WINDOW)


def test_after_the_late_reply_window_nothing_is_unanswered() -> None:
    exchange = abandoned()
    assert is_ambiguous(exchange, A0, 1.0 + LATE_REPLY_WINDOW - 0.1)
    start(exchange, A0, 1.0 + LATE_REPLY_WINDOW)
    assert receive(exchange, A0, 1.1 + LATE_REPLY_WINDOW) is Match.ANSWER
    assert not exchange.ambiguous
    assert exchange.since == 1.0 + LATE_REPLY_WINDOW


def test_a_fence_longer_than_the_late_reply_window_extends_it() -> None:
    exchange = Exchange(20.0)
    start(exchange, A0, 0.0)
    exchange.abandon(1.0)
    assert receive(exchange, A0, 20.9) is Match.LATE


def test_the_age_after_many_unanswered_requests_is_that_of_the_oldest() -> None:
    """A line that never answers does not fill the memory, and no reading is reported as newer than it is."""
    exchange = Exchange(0.0)
    for number in range(1000):
        start(exchange, A0, number / 1000)
        exchange.abandon(number / 1000)
    start(exchange, A0, 2.0)
    assert receive(exchange, A0, 2.1) is Match.ANSWER
    assert exchange.since == 0.0


def test_unanswered_requests_cross_connections() -> None:
    exchange = abandoned()
    exchange.connect(2.0)
    start(exchange, A0, 3.0)
    assert receive(exchange, A0, 3.1) is Match.ANSWER
    assert exchange.ambiguous
    assert exchange.since == 0.0


# Pauses


def test_a_new_line_has_no_pause() -> None:
    exchange = Exchange(FENCE)
    start(exchange, A0, 0.0)
    assert receive(exchange, A0, 0.1) is Match.ANSWER
    assert is_free(exchange, 0.1)


def test_a_request_abandoned_after_an_unsolicited_reply_leaves_its_pause() -> None:
    exchange = Exchange(0.0)
    start(exchange, A0, 0.0)
    assert receive(exchange, AA, 0.5) is Match.UNSOLICITED
    exchange.abandon(0.6)
    assert not is_free(exchange, 0.5 + DUPLICATE_WINDOW - 0.01)
    assert is_free(exchange, 0.5 + DUPLICATE_WINDOW)


def test_no_pause_follows_a_frame_that_is_too_late_to_be_a_reply() -> None:
    exchange = Exchange(FENCE)
    start(exchange, A0, 0.0)
    assert receive(exchange, A0, 0.0) is Match.ANSWER
    last = LATE_REPLY_WINDOW + DUPLICATE_WINDOW
    assert receive(exchange, A0, last - 0.01) is Match.UNSOLICITED
    assert not is_free(exchange, last)
    start(exchange, A0, last + 1)
    assert receive(exchange, A0, last + 1) is Match.ANSWER
    now = last + 1 + last
    assert receive(exchange, A0, now) is Match.UNSOLICITED
    assert is_free(exchange, now)


def test_a_pause_follows_an_unsolicited_reply_because_a_copy_may_come() -> None:
    exchange = abandoned()
    assert receive(exchange, A0, 1.1) is Match.LATE
    start(exchange, A0, 1.1)
    assert receive(exchange, A0, 1.2) is Match.ANSWER  # a copy of the late reply, not the request's own reply
    assert receive(exchange, A0, 1.5) is Match.UNSOLICITED  # its own reply, of which a copy may come
    assert not is_free(exchange, 1.5 + DUPLICATE_WINDOW - 0.01)
    assert is_free(exchange, 1.5 + DUPLICATE_WINDOW)


@pytest.mark.parametrize("every", [1, 7, 20, 24])
def test_unsolicited_replies_cannot_delay_requests_forever(every: int) -> None:
    """Replies to another master, at a fixed interval."""
    exchange = Exchange(FENCE)
    start(exchange, A0, 0.0)
    assert receive(exchange, A0, 0.1) is Match.ANSWER
    used = 0.2
    requests = 0
    for hundredths in range(20, 3000):
        now = hundredths / 100
        if hundredths % every == 0:
            assert receive(exchange, A0, now) is not Match.ANSWER
        if is_free(exchange, now):  # a request is waiting: it is sent at once
            used = now
            requests += 1
            start(exchange, AA, now)
            assert receive(exchange, AA, now) is Match.ANSWER
        assert now - used <= 2 * DUPLICATE_WINDOW + every / 100 + 0.02
    assert requests > 30


def test_after_an_unsolicited_reply_a_pause_follows_each_answer() -> None:
    exchange = Exchange(FENCE)
    assert receive(exchange, A0, 1.0) is Match.UNSOLICITED
    for at in (2.0, 50.0):
        start(exchange, A0, at)
        assert receive(exchange, A0, at) is Match.ANSWER
        assert not is_free(exchange, at + DUPLICATE_WINDOW - 0.01)
        assert is_free(exchange, at + DUPLICATE_WINDOW)
    start(exchange, A0, 1.0 + DUPLICATING_LINE_PERIOD)
    assert receive(exchange, A0, 1.0 + DUPLICATING_LINE_PERIOD) is Match.ANSWER
    assert is_free(exchange, 1.0 + DUPLICATING_LINE_PERIOD)


def test_after_a_duplicate_of_an_answer_a_pause_follows_each_answer() -> None:
    exchange = Exchange(FENCE)
    start(exchange, A0, 1.0)
    assert receive(exchange, A0, 1.1) is Match.ANSWER
    assert is_free(exchange, 1.1)
    assert receive(exchange, A0, 1.2) is Match.UNSOLICITED
    start(exchange, A0, 2.0)
    assert receive(exchange, A0, 2.1) is Match.ANSWER
    assert not is_free(exchange, 2.1 + DUPLICATE_WINDOW - 0.01)


def test_with_another_request_unanswered_a_late_reply_is_followed_by_a_pause() -> None:
    exchange = Exchange(0.0)
    for at in (0.0, 1.0):
        start(exchange, A0, at)
        exchange.abandon(at + 1.0)
    assert receive(exchange, A0, 2.5) is Match.LATE
    assert not is_free(exchange, 2.5 + DUPLICATE_WINDOW - 0.01)
    assert is_free(exchange, 2.5 + DUPLICATE_WINDOW)


def test_a_request_abandoned_right_after_a_reply_is_followed_by_a_pause_without_a_fence() -> None:
    exchange = Exchange(0.0)
    start(exchange, A0, 0.0)
    assert receive(exchange, A0, 0.1) is Match.ANSWER
    start(exchange, A0, 0.1)
    exchange.abandon(0.2)
    assert not is_free(exchange, 0.1 + DUPLICATE_WINDOW - 0.01)
    assert is_free(exchange, 0.1 + DUPLICATE_WINDOW)


# Windows are judged by the earliest time at which a frame may have come


def test_a_copy_that_was_read_late_is_still_a_copy() -> None:
    """It came within the window; the application was busy for 5 s."""
    exchange = Exchange(FENCE)
    start(exchange, A0, 1.0)
    assert receive(exchange, A0, 1.1) is Match.ANSWER
    start(exchange, A0, 1.2)
    assert receive(exchange, A0, 6.0, not_before=1.2) is Match.ANSWER
    assert exchange.ambiguous
    assert exchange.since == 1.0


def test_the_duplicate_window_ends_where_no_copy_can_have_come() -> None:
    exchange = Exchange(FENCE)
    start(exchange, A0, 1.0)
    assert receive(exchange, A0, 1.5) is Match.ANSWER
    start(exchange, A0, 1.6)
    assert receive(exchange, A0, 6.0, not_before=1.5 + DUPLICATE_WINDOW) is Match.ANSWER
    assert not exchange.ambiguous


def test_a_late_reply_that_was_read_late_is_still_late() -> None:
    exchange = abandoned()
    start(exchange, A0, 3.0)
    assert receive(exchange, A0, 30.0, not_before=LATE_REPLY_WINDOW) is Match.ANSWER
    assert exchange.ambiguous
    assert exchange.since == 0.0


# Echoes


def echo(exchange: Exchange, command: int, now: float, data: bytes = b"\x01") -> Match:
    return exchange.receive(request(command, data), now, now)


@pytest.mark.parametrize("command", [A0, AA, AD])
def test_the_echo_of_a_request_is_not_an_answer_but_the_reply_after_it_is(command: int) -> None:
    exchange = Exchange(FENCE)
    start(exchange, command, 1.0)
    assert echo(exchange, command, 1.1) is Match.ECHO
    assert exchange.in_flight
    assert receive(exchange, command, 1.2) is Match.ANSWER
    assert not exchange.ambiguous


def test_an_echo_leaves_requests_unanswered_and_delays_nothing() -> None:
    exchange = abandoned()
    assert echo(exchange, A0, 1.2) is Match.ECHO
    assert exchange.free_at == 1.0 + FENCE
    assert receive(exchange, A0, 1.3) is Match.LATE
    assert is_free(exchange, 1.3)


def test_a_reply_equal_to_its_request_is_ambiguous_on_a_line_that_echoes() -> None:
    """The controller copies the ID. The second equal frame is its answer, or a second echo."""
    exchange = Exchange(FENCE)
    start(exchange, A0, 1.0)
    assert echo(exchange, A0, 1.1) is Match.ECHO
    assert receive(exchange, A0, 1.2) is Match.ANSWER
    start(exchange, AA, 2.0)
    assert echo(exchange, AA, 2.1) is Match.ECHO
    assert echo(exchange, AA, 2.2) is Match.ANSWER
    assert exchange.ambiguous


def test_a_reply_equal_to_its_request_is_an_answer_if_the_line_does_not_echo_and_the_controller_copies_the_id() -> None:
    """So a line without echoes gets unambiguous answers."""
    exchange = Exchange(FENCE)
    start(exchange, A0, 1.0)
    assert exchange.receive(Frame(0x16, A0, bytes(24)), 1.1, 1.1) is Match.ANSWER
    start(exchange, AA, 2.0)
    assert echo(exchange, AA, 2.1) is Match.ANSWER
    assert not exchange.ambiguous


def test_a_frame_equal_to_its_request_is_an_echo_if_the_controller_answers_with_another_id() -> None:
    """The line has begun to echo, or its first echo was lost."""
    exchange = Exchange(FENCE)
    start(exchange, A0, 1.0)
    assert exchange.receive(Frame(0x00, A0, bytes(24)), 1.1, 1.1) is Match.ANSWER
    start(exchange, AA, 2.0)
    assert echo(exchange, AA, 2.1) is Match.ECHO
    assert receive(exchange, AA, 2.2) is Match.ANSWER
    assert not exchange.ambiguous


def test_before_the_first_reading_is_answered_the_first_equal_frame_is_an_echo() -> None:
    exchange = Exchange(FENCE)
    start(exchange, AA, 1.0)
    assert echo(exchange, AA, 1.1) is Match.ECHO
    assert echo(exchange, AA, 1.2) is Match.ANSWER
    assert exchange.ambiguous


def test_a_late_echo_is_an_echo_too() -> None:
    exchange = Exchange(FENCE)
    for command in (AA, A0):
        start(exchange, command, 1.0)
        exchange.abandon(1.0)
        assert receive(exchange, command, 1.0) is Match.LATE
    exchange.connect(2.0)
    start(exchange, AA, 3.0)
    assert echo(exchange, AA, 3.1) is Match.ECHO
    assert echo(exchange, A0, 3.1) is Match.ECHO


def test_the_first_equal_frame_after_each_request_is_its_echo() -> None:
    exchange = Exchange(FENCE)
    for at in (1.0, 5.0):
        start(exchange, AA, at)
        assert echo(exchange, AA, at + 0.1) is Match.ECHO
        assert receive(exchange, AA, at + 0.2) is Match.ANSWER
        assert not exchange.ambiguous


def test_a_frame_equal_to_a_request_before_the_late_reply_window_is_not_an_echo() -> None:
    exchange = Exchange(FENCE)
    exchange.start(request(AA, b"\x00"), 1.0, TIMEOUT)
    assert receive(exchange, AA, 1.1) is Match.ANSWER
    later = 1.0 + LATE_REPLY_WINDOW
    exchange.start(request(AA, b"\x01"), later, TIMEOUT)
    assert echo(exchange, AA, later, b"\x00") is Match.ANSWER
    assert not exchange.ambiguous


def behind_a_copy(command: int = A0) -> Exchange:
    """A request was answered at 0.13 s, perhaps by a copy of the reply before. Then its own reply will come."""
    exchange = Exchange(FENCE)
    start(exchange, command, 0.0)
    assert receive(exchange, command, 0.1) is Match.ANSWER
    start(exchange, command, 0.12)
    assert receive(exchange, command, 0.13) is Match.ANSWER
    assert exchange.ambiguous
    return exchange


@pytest.mark.parametrize("proof", ["the reply that the copy had replaced", "the reply to a later command", "nothing"])
def test_a_reading_after_a_copy_is_certain_if_the_reply_that_the_copy_had_replaced_has_come(proof: str) -> None:
    exchange = behind_a_copy()
    if proof == "the reply that the copy had replaced":
        assert receive(exchange, A0, 0.5) is Match.UNSOLICITED
    elif proof == "the reply to a later command":  # replies keep their order
        start(exchange, AA, 0.5)
        assert receive(exchange, AA, 0.6) is Match.ANSWER
    start(exchange, A0, 1.0)
    assert receive(exchange, A0, 1.1) is Match.ANSWER
    assert exchange.certain_since == (0.12 if proof == "nothing" else 1.0)


def test_a_reading_that_may_be_behind_a_copy_settles_no_command_sent_after_it() -> None:
    exchange = behind_a_copy()
    start(exchange, AA, 0.5)
    exchange.abandon(1.5)
    start(exchange, A0, 3.0)
    assert receive(exchange, A0, 3.1) is Match.ANSWER
    assert exchange.has_unanswered_command(3.1)
    assert receive(exchange, AA, 3.2) is Match.LATE


def test_the_own_reply_of_a_command_that_a_copy_answered_is_late() -> None:
    assert receive(behind_a_copy(AA), AA, 0.6) is Match.LATE


@pytest.mark.parametrize("second", [False, True], ids=["abandoned", "sent again"])
def test_a_frame_that_may_be_an_echo_settles_no_request(second: bool) -> None:
    """It may also be the reply of a controller that copies the ID. The replies to all requests may still come."""
    exchange = abandoned(AA)
    echo = request(AA)
    if second:
        start(exchange, AA, 3.0)
    assert exchange.receive(echo, 3.1, 3.1) is Match.ECHO
    assert exchange.receive(echo, 3.2, 3.2) is (Match.ANSWER if second else Match.ECHO)
    if second:
        assert exchange.ambiguous
        assert exchange.since == 0.0
    for number in range(1 + second):
        assert receive(exchange, AA, 4.0 + number) is Match.LATE
    assert receive(exchange, AA, 7.0) is Match.UNSOLICITED


def test_replies_of_one_moment_may_all_come_again() -> None:
    for commands in ((A0, A0), (AA, A0), (A0, AA)):
        exchange = Exchange(FENCE)
        for number, command in enumerate(commands):
            start(exchange, command, number / 10_000)
            assert receive(exchange, command, number / 10_000) is Match.ANSWER
        for command in commands:
            assert is_ambiguous(exchange, command, 0.2)
            assert not is_ambiguous(exchange, command, 0.3)


def test_each_new_connection_is_tested_for_echoes_again() -> None:
    exchange = Exchange(FENCE)
    start(exchange, A0, 1.0)
    assert receive(exchange, A0, 1.1) is Match.ANSWER
    exchange.connect(2.0)
    start(exchange, AA, 3.0)
    assert echo(exchange, AA, 3.1) is Match.ECHO


def test_a_reading_sent_on_an_earlier_connection_does_not_prove_that_a_line_does_not_echo() -> None:
    exchange = abandoned()
    exchange.connect(2.0)
    start(exchange, AA, 3.0)
    assert receive(exchange, A0, 3.1) is Match.LATE
    assert echo(exchange, AA, 3.2) is Match.ECHO


def test_the_last_16_different_requests_are_remembered_for_their_echoes() -> None:
    exchange = Exchange(0.0)
    for number in range(17):
        exchange.start(request(AA, bytes([number])), number / 100, TIMEOUT)
        exchange.abandon(number / 100)
    assert echo(exchange, AA, 1.0, b"\x01") is Match.ECHO
    assert echo(exchange, AA, 1.0, b"\x10") is Match.ECHO
    assert echo(exchange, AA, 1.0, b"\x00") is not Match.ECHO


# Rule 8: when a reply can only be its own command's


def answered_reading(exchange: Exchange, now: float) -> None:
    start(exchange, A0, now)
    assert receive(exchange, A0, now) is Match.ANSWER


@pytest.mark.parametrize("command", [AA, AD, None])
def test_the_first_command_on_a_connection_needs_an_answered_reading(command: int | None) -> None:
    exchange = Exchange(FENCE)
    exchange.connect(1.0)
    assert exchange.clear_from(command) is None
    answered_reading(exchange, 2.0)
    assert exchange.clear_from(command) == 2.0 + DUPLICATE_WINDOW
    exchange.connect(10.0)
    assert exchange.clear_from(command) is None


def test_an_equal_command_needs_an_answered_reading_after_the_first_one() -> None:
    exchange = Exchange(FENCE)
    exchange.connect(1.0)
    answered_reading(exchange, 2.0)
    start(exchange, AD, 3.0)
    assert exchange.clear_from(AD) is None
    assert receive(exchange, AD, 3.1) is Match.ANSWER
    assert exchange.clear_from(AD) is None
    assert exchange.clear_from(AA) == exchange.clear_from(None) == 2.0 + DUPLICATE_WINDOW
    answered_reading(exchange, 4.0)
    assert exchange.clear_from(AD) == 4.0 + DUPLICATE_WINDOW
    start(exchange, AD, 5.0)
    assert exchange.clear_from(AD) is None


def test_a_reading_that_may_be_older_than_the_command_does_not_clear_it() -> None:
    exchange = Exchange(0.0)
    exchange.connect(1.0)
    answered_reading(exchange, 2.0)
    start(exchange, A0, 3.0)
    exchange.abandon(3.1)
    start(exchange, AD, 4.0)
    exchange.abandon(5.0)
    start(exchange, A0, 6.0)
    assert receive(exchange, A0, 6.1) is Match.ANSWER
    assert exchange.since == 3.0
    assert exchange.clear_from(AD) is None


def test_a_reading_of_an_earlier_connection_does_not_clear_this_one() -> None:
    exchange = abandoned()
    exchange.connect(2.0)
    start(exchange, A0, 3.0)
    assert receive(exchange, A0, 3.1) is Match.ANSWER
    assert exchange.clear_from(None) is None
    answered_reading(exchange, 4.0)
    assert exchange.clear_from(None) == 4.0 + DUPLICATE_WINDOW


def test_a_copy_of_long_ago_makes_no_reading_uncertain() -> None:
    """The reading that the copy answered had its own reply, which can no longer come."""
    exchange = Exchange(FENCE)
    for now in (1.0, 1.1, 1.2 + LATE_REPLY_WINDOW):
        start(exchange, A0, now)
        assert receive(exchange, A0, now + 0.05) is Match.ANSWER
    assert exchange.certain_since == 1.2 + LATE_REPLY_WINDOW


def test_copies_until_is_the_latest_time_for_a_copy_of_a_reply() -> None:
    exchange = Exchange(FENCE)
    assert exchange.copies_until(A0) == 0.0
    answered_reading(exchange, 2.0)
    assert exchange.copies_until(A0) == 2.0 + DUPLICATE_WINDOW
    assert exchange.copies_until(AA) == 0.0


def test_a_command_is_unanswered_until_its_reply_or_the_late_reply_window() -> None:
    exchange = Exchange(FENCE)
    start(exchange, A0, 1.0)
    assert not exchange.has_unanswered_command(1.0)
    exchange.abandon(1.0)
    assert not exchange.has_unanswered_command(1.0)
    start(exchange, AA, 3.0)
    assert exchange.has_unanswered_command(3.0)
    exchange.abandon(4.0)
    assert exchange.has_unanswered_command(4.0 + LATE_REPLY_WINDOW - 0.1)
    assert not exchange.has_unanswered_command(4.0 + LATE_REPLY_WINDOW)
    # The question changes nothing: a reply that came earlier may still be unread.
    assert receive(exchange, AA, 4.5) is Match.LATE
    assert not exchange.has_unanswered_command(4.5)


# All short histories


def test_every_short_history_keeps_the_invariant() -> None:
    """All orders of up to seven requests, abandonments, replies, lost replies and pauses."""
    histories = 0

    def go_on(exchange: Exchange, now: float, flight: Sent | None, unanswered: tuple[Sent, ...], depth: int) -> None:
        nonlocal histories
        histories += 1
        assert (exchange.deadline is not None) == (flight is not None)
        if not depth:
            return
        if is_free(exchange, now):
            for command in (A0, AA):
                after, sent = deepcopy(exchange), Sent(command, now)
                start(after, command, now)
                go_on(after, now, sent, (*unanswered, sent), depth - 1)
        if flight is not None:
            after = deepcopy(exchange)
            after.abandon(now)
            go_on(after, now, None, unanswered, depth - 1)
        if unanswered:
            sent, *rest = unanswered
            after = deepcopy(exchange)
            answered = receive(after, sent.command, now) is Match.ANSWER
            if answered:
                assert flight is not None
                assert sent.command == flight.command
                assert after.since <= sent.at
                assert after.ambiguous or sent is flight
            else:
                assert sent is not flight
            go_on(after, now, None if answered else flight, tuple(rest), depth - 1)
            go_on(exchange, now, flight, tuple(rest), depth - 1)
        for seconds in (0.3, 2.0):
            after, later = deepcopy(exchange), now + seconds
            overdue = after.deadline is not None and later >= after.deadline
            if overdue:
                after.abandon(later)
            # A reply after the window is outside the protocol's promise. The test assumes that it never arrives.
            rest = [sent for sent in unanswered if later - sent.at < LATE_REPLY_WINDOW]
            go_on(after, later, None if overdue else flight, tuple(rest), depth - 1)

    go_on(Exchange(FENCE), 100.0, None, (), 7)
    assert histories > 10_000
