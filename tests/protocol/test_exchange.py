"""The exchange against a model: a controller that answers each request once, in order, as late as it likes."""

from collections import deque
from copy import copy
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tracer_async.protocol import ECHO, HORIZON, WARY, Exchange, Match

A0, AA = 0xA0, 0xAA
TIMEOUT = 1.0
FENCE = 1.5


@dataclass(eq=False)
class Asked:
    """A request of the model, and whether its caller still waits."""

    command: int
    at: float


class Line(RuleBasedStateMachine):
    """Any order of requests, replies (on time, late, lost, doubled, foreign), time-outs, cancellations and lost links.

    The invariant: an answer is the reply to the request in flight, or the exchange says that it may be as old as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.exchange = Exchange(FENCE)
        self.flight: Asked | None = None
        self.unanswered: deque[Asked] = deque()  # at the controller, oldest first
        self.echo: tuple[Asked, float] | None = None  # the last reply, which may come once more
        self.behind: Asked | None = None  # answered by another's second reply, its own is still to come
        self.given_up_at = self.heard_at = 0.0

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 0.7, 1.1, 2.0]))
    def time_passes(self, seconds: float) -> None:
        # The controller's memory ends before the horizon: what is later than that is beyond the protocol's promise.
        self.now += seconds
        while self.unanswered and self.now - self.unanswered[0].at > HORIZON:
            self.unanswered.popleft()
        if self.exchange.deadline is not None and self.now >= self.exchange.deadline:
            self.give_up()

    # Without a pause in which the reply too many shows, the next answer would be one behind: that nobody can tell.
    @precondition(lambda self: self.exchange.is_free(self.now) and self.behind not in self.unanswered)
    @rule(command=st.sampled_from([A0, AA]))
    def send(self, command: int) -> None:
        self.exchange.start(command, self.now, TIMEOUT)
        self.flight = Asked(command, self.now)
        self.unanswered.append(self.flight)

    @precondition(lambda self: self.flight is not None)
    @rule()
    def give_up(self) -> None:
        """Timed out, cancelled, or cut off by a lost link: it is all the same to the exchange."""
        self.exchange.give_up(self.now)
        self.flight = None
        self.given_up_at = self.now

    @precondition(lambda self: self.unanswered)
    @rule(lost=st.integers(0, 2))
    def reply(self, lost: int) -> None:
        """The controller answers the oldest request, or a later one if replies before it were lost."""
        for _ in range(min(lost, len(self.unanswered) - 1)):
            self.unanswered.popleft()
        asked = self.unanswered.popleft()
        self.receive(asked)
        self.echo = asked, self.now

    @precondition(lambda self: self.echo is not None and self.now - self.echo[1] < ECHO)
    @rule()
    def doubled_reply(self) -> None:
        assert self.echo is not None
        self.receive(self.echo[0])
        self.echo = None

    def receive(self, asked: Asked) -> None:
        match = self.exchange.receive(asked.command, self.now)
        self.heard_at = self.now
        if match is Match.ANSWER:
            assert self.flight is not None
            assert asked.command == self.flight.command
            assert self.exchange.since <= asked.at
            self.behind = self.flight if asked is not self.flight else None
            self.flight = None
        else:
            assert asked is not self.flight

    @precondition(lambda self: self.unanswered)
    @rule()
    def lose_a_reply(self) -> None:
        self.unanswered.popleft()

    @precondition(lambda self: self.flight is None and not self.unanswered)
    @rule(command=st.sampled_from([A0, AA]))
    def foreign_reply(self, command: int) -> None:
        assert self.exchange.receive(command, self.now) is not Match.ANSWER
        self.heard_at = self.now
        self.echo = None  # a bridge that doubles a reply does so before it lets another one through

    @invariant()
    def the_line_is_never_shut_for_longer_than_the_fence_and_a_pause(self) -> None:
        if self.flight is None and self.now >= max(self.given_up_at + FENCE, self.heard_at + ECHO):
            assert self.exchange.is_free(self.now)

    @invariant()
    def deadline_stands_while_a_request_is_in_flight(self) -> None:
        assert (self.exchange.deadline is not None) == (self.flight is not None)


Line.TestCase.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestLine = Line.TestCase


def test_a_request_given_up_behind_a_reply_too_many_leaves_its_pause() -> None:
    exchange = Exchange(0.0)
    exchange.start(A0, 0.0, TIMEOUT)
    assert exchange.receive(AA, 0.5) is Match.UNASKED
    exchange.give_up(0.6)
    assert not exchange.is_free(0.5 + ECHO - 0.01)
    assert exchange.is_free(0.5 + ECHO)


def test_what_comes_too_late_to_be_a_reply_is_followed_by_no_pause() -> None:
    exchange = Exchange(FENCE)
    exchange.start(A0, 0.0, TIMEOUT)
    assert exchange.receive(A0, 0.0) is Match.ANSWER
    last = HORIZON + ECHO
    assert exchange.receive(A0, last - 0.01) is Match.UNASKED
    assert not exchange.is_free(last)
    exchange.start(A0, last + 1, TIMEOUT)
    assert exchange.receive(A0, last + 1) is Match.ANSWER
    now = last + 1 + last
    assert exchange.receive(A0, now) is Match.UNASKED
    assert exchange.is_free(now)


def test_a_reply_too_many_is_followed_by_a_pause_because_it_may_come_again() -> None:
    exchange = given_up()
    assert exchange.receive(A0, 1.1) is Match.LATE
    exchange.start(A0, 1.1, TIMEOUT)
    assert exchange.receive(A0, 1.2) is Match.ANSWER  # the late one again: the request's own reply is still to come
    assert exchange.receive(A0, 1.5) is Match.UNASKED  # here it is, and now it may come again
    assert not exchange.is_free(1.5 + ECHO - 0.01)
    assert exchange.is_free(1.5 + ECHO)


@pytest.mark.parametrize("every", [1, 7, 20, 24])
def test_replies_that_nobody_asked_for_cannot_keep_the_line_shut(every: int) -> None:
    """Another master's, say, every so many hundredths of a second."""
    exchange = Exchange(FENCE)
    exchange.start(A0, 0.0, TIMEOUT)
    assert exchange.receive(A0, 0.1) is Match.ANSWER
    used = 0.2
    requests = 0
    for hundredths in range(20, 3000):
        now = hundredths / 100
        if hundredths % every == 0:
            assert exchange.receive(A0, now) is not Match.ANSWER
        if exchange.is_free(now):  # a request is waiting: it goes at once
            used = now
            requests += 1
            exchange.start(AA, now, TIMEOUT)
            assert exchange.receive(AA, now) is Match.ANSWER
        assert now - used <= 2 * ECHO + every / 100 + 0.02
    assert requests > 30


def given_up(command: int = A0) -> Exchange:
    exchange = Exchange(FENCE)
    exchange.start(command, 0.0, TIMEOUT)
    exchange.give_up(1.0)
    return exchange


def test_nothing_is_sent_before_the_owed_reply_or_the_end_of_the_fence() -> None:
    exchange = given_up()
    assert not exchange.is_free(1.0 + FENCE - 0.01)
    assert exchange.free_at == 1.0 + FENCE
    with pytest.raises(RuntimeError, match=r"^a request is in flight, or a reply is owed$"):
        exchange.start(A0, 1.1, TIMEOUT)
    assert exchange.is_free(1.0 + FENCE)


def test_the_deadline_is_the_timeout_behind_the_request() -> None:
    exchange = Exchange(FENCE)
    exchange.start(A0, 5.0, TIMEOUT)
    assert exchange.deadline == 5.0 + TIMEOUT


def test_the_owed_reply_lifts_the_fence() -> None:
    exchange = given_up()
    assert exchange.receive(A0, 1.2) is Match.LATE
    assert exchange.is_free(1.2)


def test_a_reply_to_another_command_is_no_answer() -> None:
    exchange = Exchange(FENCE)
    exchange.start(A0, 0.0, TIMEOUT)
    assert exchange.receive(AA, 0.1) is Match.UNASKED
    assert exchange.receive(A0, 0.2) is Match.ANSWER


def test_an_answer_that_may_be_an_older_requests_says_so() -> None:
    exchange = given_up()
    exchange.start(A0, 3.0, TIMEOUT)
    assert exchange.owes(A0, 3.0)
    assert exchange.receive(A0, 3.1) is Match.ANSWER
    assert exchange.since == 0.0
    # One right behind it may be the same once more, and settles nothing; a later one does.
    assert exchange.receive(A0, 3.2) is Match.LATE
    assert exchange.owes(A0, 3.2 + ECHO)
    assert exchange.receive(A0, 3.6) is Match.LATE
    assert not exchange.owes(A0, 3.6 + ECHO)


def test_an_answer_right_behind_another_may_be_its_double() -> None:
    exchange = Exchange(FENCE)
    for at in (1.0, 2.0, 2.1):
        exchange.start(A0, at, TIMEOUT)
        assert exchange.owes(A0, at) is (at == 2.1)
        assert exchange.receive(A0, at + 0.05) is Match.ANSWER
        assert exchange.since == (2.0 if at == 2.1 else at)


def test_an_answer_right_behind_a_late_reply_may_be_its_double() -> None:
    exchange = given_up()
    assert exchange.receive(A0, 1.2) is Match.LATE
    assert exchange.owes(A0, 1.3)
    exchange.start(A0, 1.3, TIMEOUT)
    assert exchange.receive(A0, 1.3) is Match.ANSWER
    assert exchange.since == 0.0


def test_a_new_line_is_given_no_pause() -> None:
    exchange = Exchange(FENCE)
    assert exchange.since <= 0.0  # before the first answer nothing is claimed to be fresh
    exchange.start(A0, 0.0, TIMEOUT)
    assert exchange.receive(A0, 0.1) is Match.ANSWER
    assert exchange.is_free(0.1)


def test_a_line_that_has_shown_a_reply_too_many_is_given_a_pause_behind_each_answer() -> None:
    exchange = Exchange(FENCE)
    assert exchange.receive(A0, 1.0) is Match.UNASKED
    for at in (2.0, 50.0):
        exchange.start(A0, at, TIMEOUT)
        assert exchange.receive(A0, at) is Match.ANSWER
        assert not exchange.is_free(at + ECHO - 0.01)
        assert exchange.is_free(at + ECHO)
    exchange.start(A0, 1.0 + WARY, TIMEOUT)
    assert exchange.receive(A0, 1.0 + WARY) is Match.ANSWER
    assert exchange.is_free(1.0 + WARY)


def test_a_line_that_has_doubled_an_answer_is_given_a_pause_too() -> None:
    exchange = Exchange(FENCE)
    exchange.start(A0, 1.0, TIMEOUT)
    assert exchange.receive(A0, 1.1) is Match.ANSWER
    assert exchange.is_free(1.1)
    assert exchange.receive(A0, 1.2) is Match.UNASKED
    exchange.start(A0, 2.0, TIMEOUT)
    assert exchange.receive(A0, 2.1) is Match.ANSWER
    assert not exchange.is_free(2.1 + ECHO - 0.01)


def test_an_answer_to_another_command_settles_what_was_owed() -> None:
    exchange = given_up(AA)
    exchange.start(A0, 3.0, TIMEOUT)
    assert exchange.receive(A0, 3.1) is Match.ANSWER
    assert exchange.since == 3.0
    assert not exchange.owes(AA, 3.1)


def test_a_late_reply_settles_its_request_and_those_before_and_none_behind() -> None:
    exchange = Exchange(0.0)
    for command, at in ((AA, 0.0), (A0, 1.0), (A0, 2.0)):
        exchange.start(command, at, TIMEOUT)
        exchange.give_up(at + 1.0)
    assert exchange.receive(A0, 3.0) is Match.LATE
    assert not exchange.owes(AA, 3.0 + ECHO)
    assert exchange.owes(A0, 3.0 + ECHO)


def test_beyond_the_horizon_nothing_is_owed() -> None:
    exchange = given_up()
    assert exchange.owes(A0, 1.0 + HORIZON - 0.1)
    assert not given_up().owes(A0, 1.0 + HORIZON)
    exchange.start(A0, 1.0 + HORIZON, TIMEOUT)
    assert exchange.receive(A0, 1.1 + HORIZON) is Match.ANSWER
    assert exchange.since == 1.0 + HORIZON


def test_a_line_that_never_answers_does_not_fill_the_memory() -> None:
    exchange = Exchange(0.0)
    for _ in range(1000):
        exchange.start(A0, 0.0, TIMEOUT)
        exchange.give_up(0.0)
    assert len(exchange._owed) < 100


def test_the_last_64_requests_without_a_reply_are_remembered() -> None:
    exchange = Exchange(0.0)
    for number in range(1000):
        exchange.start(A0, number / 1000, TIMEOUT)
        exchange.give_up(number / 1000)
    exchange.start(A0, 2.0, TIMEOUT)
    assert exchange.receive(A0, 2.1) is Match.ANSWER
    assert exchange.since == (1000 - 64) / 1000


def test_giving_up_with_nothing_in_flight_owes_nothing() -> None:
    exchange = Exchange(FENCE)
    exchange.give_up(1.0)
    assert exchange.is_free(1.0)


@pytest.mark.parametrize("fence", [-1.0, float("nan")])
def test_a_fence_is_not_negative(fence: float) -> None:
    with pytest.raises(ValueError, match="fence"):
        Exchange(fence)


def test_with_another_still_owed_a_late_reply_is_followed_by_a_pause() -> None:
    exchange = Exchange(0.0)
    for at in (0.0, 1.0):
        exchange.start(A0, at, TIMEOUT)
        exchange.give_up(at + 1.0)
    assert exchange.receive(A0, 2.5) is Match.LATE
    assert not exchange.is_free(2.5 + ECHO - 0.01)
    assert exchange.is_free(2.5 + ECHO)


def test_a_request_given_up_right_behind_a_reply_is_followed_by_a_pause_without_a_fence() -> None:
    exchange = Exchange(0.0)
    exchange.start(A0, 0.0, TIMEOUT)
    assert exchange.receive(A0, 0.1) is Match.ANSWER
    exchange.start(A0, 0.1, TIMEOUT)
    exchange.give_up(0.2)
    assert not exchange.is_free(0.1 + ECHO - 0.01)
    assert exchange.is_free(0.1 + ECHO)


def test_a_late_reply_leaves_the_fence_of_another_that_is_still_owed() -> None:
    exchange = given_up()
    exchange.start(A0, 3.0, TIMEOUT)
    exchange.give_up(4.0)
    assert exchange.receive(A0, 4.1) is Match.LATE
    assert not exchange.is_free(4.0 + FENCE - 0.01)
    assert exchange.is_free(4.0 + FENCE)


def test_every_short_history_keeps_the_invariant() -> None:
    """Exhaustively: all orders of up to eight requests, give-ups, replies, lost replies and pauses."""
    histories = 0

    def go_on(exchange: Exchange, now: float, flight: Asked | None, unanswered: tuple[Asked, ...], depth: int) -> None:
        nonlocal histories
        histories += 1
        assert (exchange.deadline is not None) == (flight is not None)
        if not depth:
            return
        if exchange.is_free(now):
            for command in (A0, AA):
                after, asked = fork(exchange), Asked(command, now)
                after.start(command, now, TIMEOUT)
                go_on(after, now, asked, (*unanswered, asked), depth - 1)
        if flight is not None:
            after = fork(exchange)
            after.give_up(now)
            go_on(after, now, None, unanswered, depth - 1)
        if unanswered:
            asked, *rest = unanswered
            after = fork(exchange)
            answered = after.receive(asked.command, now) is Match.ANSWER
            if answered:
                assert flight is not None
                assert asked.command == flight.command
                assert after.since <= asked.at
            else:
                assert asked is not flight
            go_on(after, now, None if answered else flight, tuple(rest), depth - 1)
            go_on(fork(exchange), now, flight, tuple(rest), depth - 1)
        for seconds in (0.3, 2.0):
            after, later = fork(exchange), now + seconds
            overdue = after.deadline is not None and later >= after.deadline
            if overdue:
                after.give_up(later)
            # What is later than the horizon is beyond the protocol's promise, and is taken never to come.
            rest = [asked for asked in unanswered if later - asked.at < HORIZON]
            go_on(after, later, None if overdue else flight, tuple(rest), depth - 1)

    go_on(Exchange(FENCE), 100.0, None, (), 8)
    assert histories > 50_000


def fork(exchange: Exchange) -> Exchange:
    after = copy(exchange)
    after._owed = list(exchange._owed)
    return after
