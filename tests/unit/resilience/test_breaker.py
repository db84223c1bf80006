"""One breaker: the cases of resilience4j's state machine as a table, then what is ours."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from switchgear.contract.values import ErrorClass
from switchgear.resilience.breaker import ANSWERED, COUNTED, Breaker, breaker_fault
from switchgear.resilience.circuit import LOOK_AGAIN, REFUSED, Change, Circuit

THEIRS = Breaker(
    failure_rate=0.5,
    slow_rate=0.5,
    slow_after=timedelta(seconds=4),
    minimum_calls=5,
    window=timedelta(seconds=5),
    in_a_row=0,
    open_for=timedelta(seconds=5),
    max_open_for=timedelta(seconds=60),
    probes=4,
    jitter=0.0,
)
"""What their tests use; a rule for low traffic they do not have."""
BY_COUNT = replace(THEIRS, window=5)
ONE_PROBE = replace(THEIRS, probes=1)
HALF_OPEN = "- - - - - =open >6 "
"""Opened by five failures, and its open time over."""


class Case(NamedTuple):
    """A script: what is done, and what is to be seen.

    `+` a call succeeds, `-` fails, `s` is slow, `S` fails slowly, `i` fails with a class that is ignored, `r` is
    released, that which was kept last; `a` takes a permit and keeps it, `x` is refused one; `d+` and `d-` end the call
    that was kept first; `>3` lets so many seconds pass; `open`, `close` and `reset` are ordered; `=state` and
    `#calls,failed,slow` are what is seen then.
    """

    name: str
    script: str
    policy: Breaker = THEIRS


CASES = (
    Case("opens when the failure rate is reached, not before there are enough calls",
         "- - - + =closed #4,3,0 + =open #5,3,0 x"),
    Case("opens when the slow call rate is reached", "S s - + =closed s =open #5,2,3"),
    Case("stays closed below both rates", "- - + + + =closed #5,2,0"),
    Case("opens at exactly the rate", "- - - + + + =open", replace(THEIRS, minimum_calls=6)),
    Case("lets probes through after the open time, and not earlier",
         "- - - - - =open x >3 x =open >3 a =half-open #0,0,0"),
    Case("permits as many calls in half-open as there are probes", HALF_OPEN + "a a a a x x"),
    Case("has all probes again after it opened once more",
         HALF_OPEN + "a a - - =open >11 a a a a x x"),
    Case("gives a released probe back", HALF_OPEN + "a a a a x r a x"),
    Case("opens again when probes fail; as soon as the others cannot change that",
         HALF_OPEN + "- =half-open - =open x"),
    Case("opens again when probes are slow", HALF_OPEN + "s =half-open s =open"),
    Case("closes when the probes' failures are below the rate, and forgets the past",
         HALF_OPEN + "- + + =half-open + =closed #0,0,0 a + #1,0,0"),
    Case("closes as soon as the last probes could not change it", HALF_OPEN + "+ + =half-open + =closed"),
    Case("gives the probe of an ignored failure back",
         HALF_OPEN + "+ + i i i i i =half-open #2,0,0 + =closed"),
    Case("ignores failures that say nothing, before it closes", HALF_OPEN + "i i i i =half-open #0,0,0 + + + =closed"),
    Case("stays open for longer each time that its probes fail",
         HALF_OPEN + "- - =open >6 x >5 - - =open >11 x >10 a =half-open"),
    Case("waits for its probes as long as it may stay open, and then lets others through",
         HALF_OPEN + "a a a a x >4 x >1 =half-open a a a a x =half-open"),
    Case("waits longer for each further set of probes that does not answer, up to the longest open time",
         HALF_OPEN + "a >5 a x >9 x >1 a x >19 x >1 a x >39 x >1 a x >59 x >1 a x >59 x >1 a", ONE_PROBE),
    Case("gives away only the places of the probes that are late",
         HALF_OPEN + "a >3 a a >2 a a x d- =half-open d- =open"),
    Case("counts a late probe, as nothing was decided yet", HALF_OPEN + "a >5 a x d+ =closed #0,0,0", ONE_PROBE),
    Case("counts a late probe for nothing once another one decided",
         HALF_OPEN + "a >5 a r =half-open + =closed d- =closed #0,0,0", ONE_PROBE),
    Case("does not open twice for one outage by a late probe",
         HALF_OPEN + "a >5 - =open d- =open >9 x >1 + =closed", ONE_PROBE),
    Case("waits for no probe that was given back", HALF_OPEN + "a r >60 a x >4 x >1 a", ONE_PROBE),
    Case("forgets its calls when it is reset", "+ - #2,1,0 reset =closed #0,0,0"),
    Case("closes when it is reset", "- - - - - =open reset =closed + #1,0,0"),
    Case("refuses while it is held open, whatever time passes", "open =forced-open x >6 x >3600 x =forced-open"),
    Case("counts what it lets through while it is held closed, and stays so",
         "close =disabled + - - - - - - =disabled #7,6,0 a"),
    Case("is left by neither held state but by order", "open close =disabled - open =forced-open x reset =closed +"),
    Case("keeps no old calls: by time", "- - >6 - - + + =closed #4,2,0"),
    Case("keeps no old calls: by count", "- - + + + =closed #5,2,0 + + + =closed #5,0,0", BY_COUNT),
    Case("decides over the newest calls: by count", "+ + + - - =closed + - =open #5,3,0", BY_COUNT),
    Case("needs no more calls than its window holds", "- - =closed - =open",
         replace(THEIRS, window=3, minimum_calls=100)),
)  # fmt: skip


class Play:
    """A breaker, its clock, and the permits that are out."""

    def __init__(self, policy: Breaker, dice: float = 0.0) -> None:
        self.now = 100.0
        self.changes: list[Change] = []
        self.circuit = Circuit(policy, self.now, lambda: dice, self.changes.append)
        self.kept: list[int] = []

    def call(self, kind: str, error_class: str = "transient", asked: float | None = None) -> None:
        """One call from its permit to its end."""
        permit = self.circuit.acquire(self.now)
        assert permit != REFUSED
        took = 5.0 if kind in "sS" else 0.1
        if kind in "+s":
            self.circuit.success(permit, self.now, took)
        else:
            found = "bug" if kind == "i" else error_class
            self.circuit.failure(permit, self.now, took, found, "why", asked)

    def run(self, script: str) -> None:
        """A whole script."""
        for token in script.split():
            self.do(token)

    def do(self, token: str) -> None:
        """One step of a script."""
        match token[0], token[1:]:
            case ("o" | "c", _) | ("r", "eset"):
                self.order(token)
            case (("+" | "-" | "s" | "S" | "i") as kind, ""):
                self.call(kind)
            case ("a", ""):
                permit = self.circuit.acquire(self.now)
                assert permit != REFUSED
                self.kept.append(permit)
            case ("x", ""):
                assert self.circuit.acquire(self.now) == REFUSED
            case ("r", ""):
                self.circuit.release(self.kept.pop())
            case ("d", end):
                self.end(self.kept.pop(0), end)
            case (">", seconds):
                self.now += float(seconds)
            case _:
                self.see(token)

    def order(self, action: str) -> None:
        """What a person orders."""
        circuit = self.circuit
        if action == "reset":
            circuit.reset(self.now, "ana", "")
        else:
            act = {"open": circuit.force_open, "close": circuit.disable}[action]
            act(self.now, "ana", "maintenance")

    def end(self, permit: int, end: str) -> None:
        """A call that was kept ends."""
        if end == "+":
            self.circuit.success(permit, self.now, 0.1)
        else:
            assert end == "-"
            self.circuit.failure(permit, self.now, 0.1, "transient", "late")

    def see(self, token: str) -> None:
        """What is to be seen."""
        if token[0] == "=":
            assert self.circuit.state == token[1:]
        else:
            assert token[0] == "#"
            counts = tuple(map(int, token[1:].split(",")))
            assert self.circuit.seen(self.now).totals == counts


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cases_of_resilience4j(case: Case) -> None:
    Play(case.policy).run(case.script)


def played(policy: Breaker, script: str, dice: float = 0.0) -> Play:
    """A breaker after a script."""
    play = Play(policy, dice)
    play.run(script)
    return play


def test_failures_in_a_row_open_it_where_calls_are_few() -> None:
    """Without a success between them, whatever the window has forgotten; not where rates decide."""
    policy = replace(THEIRS, in_a_row=3, minimum_calls=10, row_within=timedelta(minutes=10))
    play = played(policy, "- >60 - >60 =closed - =open")
    assert play.changes[-1].why == "3 calls in a row failed, the last with transient: why"
    played(policy, "- - + - - =closed - =open")
    played(policy, "- >601 - - =closed - =open")
    played(policy, "- - reset - - =closed")
    played(policy, "i - i - =closed i - =open")
    busy = "+ + + + + + + + + + - - - - - - - - - =closed"
    played(policy, busy)


def test_a_class_that_answers_breaks_a_row_and_one_that_says_nothing_does_not() -> None:
    policy = replace(THEIRS, in_a_row=3, minimum_calls=10)
    play = played(policy, "- -")
    play.call("-", "step")
    play.do("-")
    play.do("=closed")
    play.do("-")
    play.call("-", "cancelled")
    play.do("=closed")
    play.do("-")
    play.do("=open")


@pytest.mark.parametrize("error_class", sorted(ErrorClass.__args__))
def test_what_a_class_means_is_explicit(error_class: ErrorClass) -> None:
    """Failures of the dependency open it; its answers close it; all else leaves it as it is."""
    play = Play(replace(THEIRS, probes=1))
    for _ in range(5):
        play.call("-", error_class)
    assert (play.circuit.state == "open") == (error_class in COUNTED)
    play = played(replace(THEIRS, probes=1), HALF_OPEN)
    play.call("-", error_class)
    expected = (
        "open" if error_class in COUNTED else "closed" if error_class in ANSWERED else "half-open"
    )
    assert play.circuit.state == expected
    assert play.circuit.room(play.now) == (
        None if expected == "closed" else expected == "half-open"
    )


def test_a_verdict_that_comes_after_the_state_changed_counts_for_nothing() -> None:
    """Neither a late failure, nor a late success, nor a late release of the state before."""
    play = played(replace(THEIRS, probes=1), "a a a - - - - - =open")
    circuit, (one, two, three) = play.circuit, play.kept
    circuit.success(one, play.now, 0.1)
    assert circuit.state == "open"
    play.do(">6")
    play.do("a")
    assert circuit.state == "half-open"
    circuit.failure(two, play.now, 0.1, "transient")
    circuit.release(three)
    assert (circuit.state, circuit.room(play.now)) == ("half-open", 0)
    circuit.success(play.kept.pop(), play.now, 0.1)
    assert circuit.state == "closed"


def test_open_times_grow_to_the_cap_and_begin_anew_when_it_was_well_for_long_enough() -> None:
    """Opening again sooner than it had been open is the same trouble."""
    policy = replace(THEIRS, probes=1, max_open_for=timedelta(seconds=15))
    play = Play(policy)
    waits: list[float] = []

    def open_again(script: str) -> None:
        play.run(script)
        assert play.circuit.state == "open"
        wait = play.circuit.wait(play.now)
        assert wait is not None
        waits.append(wait)
        play.now += wait

    open_again("- - - - -")
    open_again("-")
    open_again("-")
    open_again("+ =closed >14 - - - - -")
    open_again("+ =closed >15 - - - - -")
    open_again("reset - - - - -")
    assert waits == [5, 10, 15, 15, 5, 5]


def test_a_verdict_counts_once() -> None:
    """Whoever gives it twice, and whatever it says the second time."""
    play = played(THEIRS, HALF_OPEN + "a a a a")
    circuit, (one, two, *_) = play.circuit, play.kept
    for _ in range(4):
        circuit.failure(one, play.now, 0.1, "transient")
    assert circuit.seen(play.now).totals == (1, 1, 0)
    assert not circuit.release(one)
    assert circuit.release(two)
    assert not circuit.release(two)
    circuit.success(two, play.now, 0.1)
    assert circuit.seen(play.now).totals == (1, 1, 0)
    assert circuit.room(play.now) == 1


def test_who_is_told_of_a_change_finds_the_breaker_as_it_is_from_then_on() -> None:
    """The probe that a change to half-open is for has its place already; open and closed ones know how long and why."""
    seen: list[tuple[str, int | None, float | None, str]] = []

    def look(change: Change) -> None:
        found = circuit.seen(change.at)
        assert (found.state, found.since, found.why) == (change.new, change.at, change.why)
        seen.append(
            (change.new, circuit.room(change.at), circuit.wait(change.at), found.error_class)
        )

    circuit = Circuit(replace(THEIRS, in_a_row=1, probes=2), 0.0, lambda: 0.0, look)
    circuit.failure(circuit.acquire(0.0), 0.0, 0.1, "timeout")
    first = circuit.acquire(5.0)
    assert circuit.room(5.0) == 1
    circuit.success(first, 5.0, 0.1)
    circuit.success(circuit.acquire(5.0), 5.0, 0.1)
    assert seen == [
        ("open", 0, 5.0, "timeout"),
        ("half-open", 1, None, "timeout"),
        ("closed", None, None, ""),
    ]


def test_a_late_probe_that_shows_nothing_gives_no_second_place_back() -> None:
    play = played(ONE_PROBE, HALF_OPEN + "a >5 a")
    late, newer = play.kept
    play.circuit.release(late)
    play.do("x")
    play.circuit.release(newer)
    play.run("a x")


def test_what_is_seen_tells_of_probes_that_do_not_answer() -> None:
    play = played(ONE_PROBE, HALF_OPEN + "a >5")
    assert play.circuit.seen(play.now).why == "its open time is over; 1 probe is late"
    play.do("a")
    play.do(">10")
    assert play.circuit.seen(play.now).why == "its open time is over; 2 probes are late"


def test_when_time_alone_lets_calls_through_is_told() -> None:
    """So that whoever pulls work looks again then; None where only an answer or an order does."""
    play = Play(ONE_PROBE)
    due: list[float | None] = []
    for script in ("", "- - - - -", ">2", ">3", "a", ">1", ">4", "a", "r r", "open", "close"):
        play.run(script)
        due.append(play.circuit.due(play.now))
    assert due == [None, 5, 3, None, 5, 4, 10, 10, 5, None, None]


def test_it_stays_open_for_at_least_as_long_as_a_counted_failure_asked() -> None:
    """No shorter than by itself, no longer than the longest open time; what was asked for long ago is over."""

    def opened(*asked: tuple[str, float | None], pause: float = 0.0) -> float:
        play = Play(THEIRS)
        for error_class, seconds in asked:
            play.call("-", error_class, seconds)
            play.now += pause
        for _ in range(5 - len(asked)):
            play.call("-")
        wait = play.circuit.wait(play.now)
        assert wait is not None
        return wait

    limited = "rate-limited"
    assert opened((limited, 20.0)) == 20
    assert opened((limited, 20.0), (limited, 12.0), (limited, None)) == 20
    assert opened((limited, 20.0), pause=4.0) == 16
    assert opened((limited, 20.0), pause=4.9) == pytest.approx(15.1)
    assert opened((limited, 2.0)) == 5
    assert opened((limited, 3600.0)) == 60
    assert opened((limited, float("inf"))) == 60
    assert opened((limited, float("nan"))) == 5
    assert opened(("transient", 20.0)) == 20
    play = Play(replace(THEIRS, minimum_calls=6))
    play.call("-", "step", 20.0)
    for _ in range(5):
        play.call("-")
    assert play.circuit.wait(play.now) == 5


def test_a_probe_that_is_asked_to_wait_opens_it_for_so_long() -> None:
    """And says so; once it has closed, nothing that was asked for before counts."""
    play = played(ONE_PROBE, HALF_OPEN)
    play.call("-", "rate-limited", 30.0)
    seen = play.circuit.seen(play.now)
    assert seen.until == play.now + 30
    assert seen.why == ("1 of 1 probes failed, the last with rate-limited: why; it asked for 30 s")
    play = played(ONE_PROBE, HALF_OPEN)
    play.call("-", "rate-limited", 500.0)
    play.run(">60 + =closed >61 - - - - - =open")
    assert play.circuit.wait(play.now) == 5
    assert "asked" not in play.circuit.seen(play.now).why


def test_what_was_asked_for_is_spread_by_more_time_and_not_by_less() -> None:
    """Instances that were told the same do not come back together, nor too early."""
    for dice, seconds in ((0.0, 20.0), (0.5, 22.0), (0.999, 24.0)):
        play = Play(replace(THEIRS, jitter=0.2), dice)
        for _ in range(5):
            play.call("-", "rate-limited", 20.0)
        assert play.circuit.wait(play.now) == pytest.approx(seconds, abs=0.01)


def test_being_asked_to_wait_opens_nothing_by_itself() -> None:
    """A limit of one caller is no outage: the thresholds decide."""
    play = Play(THEIRS)
    for _ in range(4):
        play.call("-", "rate-limited", 20.0)
    play.do("=closed")


def test_a_policy_can_let_one_refusal_open_it_at_once() -> None:
    """As the how-to says: however many calls went well, and for as long as was asked."""
    policy = Breaker(counts=frozenset({"rate-limited"}), in_a_row=1, minimum_calls=1_000_000)
    assert breaker_fault(policy) == ""
    play = Play(policy)
    for _ in range(1000):
        play.call("+")
        play.call("-", "transient")
    play.call("-", "rate-limited", 120.0)
    play.do("=open")
    assert play.circuit.wait(play.now) == 120


@pytest.mark.parametrize(("dice", "seconds"), [(0.0, 5.0), (0.5, 4.5), (0.999, 4.001)])
def test_a_share_of_the_open_time_is_drawn(dice: float, seconds: float) -> None:
    """So that instances do not probe together; never longer than the policy says."""
    play = played(replace(THEIRS, jitter=0.2), "- - - - -", dice)
    assert play.circuit.wait(play.now) == pytest.approx(seconds)


def test_how_long_to_wait_and_how_many_may_pass_is_told_in_each_state() -> None:
    circuit = (play := Play(THEIRS)).circuit

    def told() -> tuple[float | None, int | None]:
        return circuit.wait(play.now), circuit.room(play.now)

    assert told() == (None, None)
    play = played(THEIRS, "- - - - - >2")
    circuit = play.circuit
    assert told() == (3, 0)
    play.do(">3")
    assert told() == (None, 4)
    play.do("a")
    assert told() == (None, 3)
    for _ in range(3):
        play.do("a")
    assert told() == (LOOK_AGAIN, 0)
    play.now += 4.5
    assert told() == (0.5, 0)
    play.now += 0.5
    assert told() == (None, 4)
    play.do("open")
    assert told() == (5, 0)
    play.do("close")
    assert told() == (None, None)


def test_what_is_seen_says_who_holds_it_and_why() -> None:
    play = played(THEIRS, "- - - - - >1")
    seen = play.circuit.seen(play.now)
    assert (seen.since, seen.until, seen.opened) == (100, 105, 1)
    assert (seen.error_class, seen.forced) == ("transient", None)
    assert seen.why == "5 of 5 calls failed, the last with transient: why"
    play.do("open")
    seen = play.circuit.seen(play.now)
    assert seen.forced is not None
    assert (seen.forced.by, seen.forced.at, seen.why) == ("ana", 101, "ana: maintenance")
    assert (seen.until, seen.error_class) == (None, "")
    play.do("reset")
    assert play.circuit.seen(play.now).forced is None
    assert [change.new for change in play.changes] == ["open", "forced-open", "closed"]


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (Breaker(failure_rate=0), "failure_rate"),
        (Breaker(failure_rate=1.1), "failure_rate"),
        (Breaker(slow_rate=0), "slow_rate"),
        (Breaker(minimum_calls=0), "minimum_calls"),
        (Breaker(window=0), "window"),
        (Breaker(window=100_000), "window"),
        (Breaker(window=timedelta()), "window"),
        (Breaker(in_a_row=-1), "in_a_row"),
        (Breaker(probes=0), "probes"),
        (Breaker(growth=0.5), "growth"),
        (Breaker(jitter=2), "jitter"),
        (Breaker(open_for=timedelta()), "open_for"),
        (Breaker(open_for=timedelta(hours=1)), "max_open_for"),
        (Breaker(counts=frozenset({"step"})), "counts"),
        (Breaker(concurrency=0), "concurrency"),
        (Breaker(queue=-1), "queue"),
        (Breaker(queue_for=timedelta(seconds=-1)), "queue_for"),
    ],
)
def test_a_policy_that_makes_no_sense_is_told(policy: Breaker, fault: str) -> None:
    assert fault in breaker_fault(policy)


def test_the_default_policy_makes_sense() -> None:
    assert breaker_fault(Breaker()) == ""
    assert not COUNTED & ANSWERED


def test_a_breaker_that_nobody_listens_to_opens_all_the_same() -> None:
    circuit = Circuit(replace(THEIRS, in_a_row=1), 0.0, lambda: 0.0)
    circuit.failure(circuit.acquire(0.0), 0.0, 0.1, "timeout")
    assert circuit.state == "open"
    assert circuit.seen(0.0).why == "1 calls in a row failed, the last with timeout"
