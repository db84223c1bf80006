"""Schedules: due times across summer time, missed ones, overlap, and firing under any timers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from switchgear.contract.announcement import CronTrigger
from switchgear.contract.cron import Missed, Overlap
from switchgear.contract.queries import Schedule
from switchgear.errors import UsageError
from switchgear.lifecycle.schedule import (
    MAX_CATCH_UP,
    changed,
    due_times,
    fault,
    fire,
    next_after,
    next_due,
    task_id,
)

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def schedule(
    expression: str = "*/10 * * * *",
    *,
    timezone: str = "UTC",
    missed: Missed = "latest",
    overlap: Overlap = "skip",
    created: datetime = NEW_YEAR,
) -> Schedule:
    cron = CronTrigger(expression=expression, timezone=timezone, missed=missed, overlap=overlap)
    return Schedule(name="s", owner="ana", capability="c", cron=cron, created=created)


def times(expression: str, timezone: str, begin: str, count: int) -> list[str]:
    """The next due times as the clocks of that zone show them, with their distance from UTC."""
    from zoneinfo import ZoneInfo

    cron = CronTrigger(expression=expression, timezone=timezone)
    moment = datetime.fromisoformat(begin)
    found: list[str] = []
    for _ in range(count):
        following = next_after(cron, moment)
        assert following is not None
        assert following.tzinfo is UTC
        moment = following
        found.append(moment.astimezone(ZoneInfo(timezone)).isoformat(timespec="minutes"))
    return found


def at(minutes: float) -> datetime:
    return NEW_YEAR + timedelta(minutes=minutes)


# summer time: Berlin 2026-03-29 02:00 -> 03:00 and 2026-10-25 03:00 -> 02:00, New York 03-08 and 11-01


@pytest.mark.parametrize(
    ("expression", "timezone", "begin", "expected"),
    [
        (
            "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z",
            ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"],
        ),
        (
            "30 2 * * *", "America/New_York", "2026-03-07T12:00Z",
            ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"],
        ),
        (
            "*/20 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z",
            ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"],
        ),
        (
            "0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00Z",
            ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"],
        ),
        (
            "0 * * * *", "Europe/Berlin", "2026-03-29T00:00Z",
            ["2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"],
        ),
        (
            "0 0 * * *", "Asia/Beirut", "2026-03-28T12:00Z",
            ["2026-03-29T01:00+03:00", "2026-03-30T00:00+03:00"],
        ),
    ],
)  # fmt: skip
def test_time_in_a_skipped_hour_runs_right_after_it(
    expression: str, timezone: str, begin: str, expected: list[str]
) -> None:
    assert times(expression, timezone, begin, len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "timezone", "begin", "expected"),
    [
        (
            "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z",
            ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"],
        ),
        (
            "*/30 1 * * *", "America/New_York", "2026-10-31T12:00Z",
            ["2026-11-01T01:00-04:00", "2026-11-01T01:30-04:00", "2026-11-02T01:00-05:00"],
        ),
    ],
)  # fmt: skip
def test_fixed_time_in_a_doubled_hour_runs_once(
    expression: str, timezone: str, begin: str, expected: list[str]
) -> None:
    assert times(expression, timezone, begin, len(expected)) == expected


def test_what_runs_every_hour_follows_the_clock_through_a_doubled_one() -> None:
    """An hourly check is not silent for two hours in the night of the change."""
    assert times("30 * * * *", "Europe/Berlin", "2026-10-24T23:45Z", 3) == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:30+01:00",
    ]
    assert times("30 0-23 * * *", "Europe/Berlin", "2026-10-25T00:15Z", 2) == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
    ]


def test_second_pass_through_a_doubled_hour_fires_nothing_again() -> None:
    """02:15 winter time: 02:30 of that day has been."""
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-25T01:15Z", 1) == [
        "2026-10-26T02:30+01:00"
    ]


# faults


@pytest.mark.parametrize(
    ("expression", "timezone", "told"),
    [
        ("* * * *", "UTC", "five fields"),
        ("* * * * * *", "UTC", "five fields"),
        ("@daily", "UTC", "five fields"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("0 0 * * FUNDAY", "UTC", "Bad day-of-week"),
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("1" * 300 + " * * * *", "UTC", "no cron expression"),
        ("² * * * *", "UTC", "Bad minute"),
        ("* * * * *", "Europe/Nowhere", "no time zone"),
        ("* * * * *", "../../etc/passwd", "no time zone"),
        ("* * * * *", "", "no time zone"),
    ],
)
def test_what_cannot_be_read_is_told(expression: str, timezone: str, told: str) -> None:
    assert told in fault(expression, timezone)


@pytest.mark.parametrize(
    "expression", ["0 6 * * MON-FRI", "*/5 8-18 * * *", "0 0 29 2 *", "0 0 L * *", " 0  0 1 * * "]
)
def test_what_cron_knows_is_no_fault(expression: str) -> None:
    assert fault(expression, "America/New_York") == ""


def test_a_schedule_that_became_unreadable_raises_instead_of_firing() -> None:
    """A replica whose time zones are older than another's."""
    with pytest.raises(UsageError):
        fire(schedule(timezone="Europe/Nowhere"), at(30), previous_open=False)


# missed times


def test_latest_handles_the_newest_missed_time_only() -> None:
    assert due_times(schedule(), at(9.9)) == []
    assert due_times(schedule(), at(35)) == [at(30)]
    assert due_times(replace(schedule(), fired=at(30)), at(35)) == []


def test_latest_of_a_decade_of_minutes_is_found_by_halving() -> None:
    old = schedule("* * * * *", created=datetime(2016, 1, 1, tzinfo=UTC))
    assert due_times(old, at(0.5)) == [at(0)]


def test_all_handles_every_missed_time_in_batches() -> None:
    """The first hundred now; the timer comes at once for the rest."""
    missed = schedule("* * * * *", missed="all")
    first = fire(missed, at(250), previous_open=False)
    assert [one.due for one in first.starts] == [
        at(minute) for minute in range(1, MAX_CATCH_UP + 1)
    ]
    assert first.next == at(MAX_CATCH_UP + 1)
    second = fire(first.schedule, at(250), previous_open=False)
    assert second.starts[0].due == at(MAX_CATCH_UP + 1)


def test_skip_drops_what_is_later_than_a_minute() -> None:
    skipping = schedule(missed="skip")
    assert due_times(skipping, at(11)) == [at(10)]
    assert due_times(skipping, at(11.01)) == []
    assert fire(skipping, at(15), previous_open=False).next == at(20)


# overlap


def test_skip_starts_nothing_while_the_last_task_is_open() -> None:
    running = replace(schedule(), last="before")
    skipped = fire(running, at(10), previous_open=True)
    assert skipped.starts == ()
    assert (skipped.schedule.fired, skipped.schedule.last) == (at(10), "before")
    assert len(fire(running, at(10), previous_open=False).starts) == 1


def test_queue_starts_after_the_last_task_and_names_the_next() -> None:
    """The next task's id is known before it exists, so the end of this one wakes it."""
    running = replace(schedule(overlap="queue"), last="before")
    (one,) = fire(running, at(10), previous_open=True).starts
    assert (one.after, one.then) == ("before", task_id(running, at(20)))
    (free,) = fire(running, at(10), previous_open=False).starts
    assert free.after is None


def test_cancel_ends_the_last_task_and_starts_after_it() -> None:
    running = replace(schedule(overlap="cancel", missed="all"), last="before")
    (one,) = fire(running, at(35), previous_open=True).starts
    assert (one.due, one.after, one.cancel_previous) == (at(30), "before", True)


def test_batch_of_missed_times_runs_one_after_the_other() -> None:
    starts = fire(schedule(missed="all"), at(35), previous_open=False).starts
    assert [one.after for one in starts] == [None, starts[0].task, starts[1].task]
    assert [one.then for one in starts] == [starts[1].task, starts[2].task, None]


# putting again


def test_put_again_keeps_what_was_handled_unless_the_times_change() -> None:
    former = replace(schedule(), fired=at(30), last="t", paused=True)
    same = changed(former, replace(schedule(), priority="high", created=at(33)))
    assert (same.fired, same.last, same.paused, same.priority) == (at(30), "t", True, "high")
    assert same.created == NEW_YEAR
    other = changed(former, schedule("*/7 * * * *", created=at(33)))
    assert (other.fired, other.created, other.last) == (None, at(33), "t")
    assert changed(former, replace(schedule(), capability="d")).last == ""


def test_paused_schedule_starts_nothing_and_goes_on_by_its_policy() -> None:
    paused = replace(schedule(missed="all"), paused=True)
    assert fire(paused, at(35), previous_open=False) == ((), paused, None)
    assert next_due(paused, at(35)) is None
    resumed = replace(paused, paused=False)
    assert next_due(resumed, at(35)) == at(10)
    assert len(fire(resumed, at(35), previous_open=False).starts) == 3


# under any timers


@given(
    looks=st.lists(st.tuples(st.floats(0, 200), st.booleans(), st.booleans()), max_size=40),
    missed=st.sampled_from(["latest", "all", "skip"]),
    overlap=st.sampled_from(["queue", "cancel"]),
    expression=st.sampled_from(["*/10 * * * *", "* * * * *", "7,8,50 * * * *", "0 3 * * *"]),
)
def test_no_due_time_is_lost_or_doubled_whatever_the_timers_do(
    looks: list[tuple[float, bool, bool]], missed: Missed, overlap: Overlap, expression: str
) -> None:
    """Timers come in any order, early, late and twice; between some of them the schedule is paused."""
    kept = schedule(expression, missed=missed, overlap=overlap)
    started: list[datetime] = []
    latest = NEW_YEAR
    for minutes, paused, doubled in looks:
        kept = replace(kept, paused=paused)
        now = at(minutes)
        before = kept.fired or kept.created
        for _ in range(2 if doubled else 1):
            fired = fire(kept, now, previous_open=False)
            assert fired.next is None or fired.next > (fired.schedule.fired or NEW_YEAR)
            started += [one.due for one in fired.starts]
            assert all(one.due <= now for one in fired.starts)
            kept = fired.schedule
        if not paused:
            latest = max(latest, now)
            due = all_due(kept, before, now)
            if missed == "skip":
                due = due_lately(due, now)
            if missed == "all":
                due = due[:MAX_CATCH_UP]
            assert not due or due[-1] in started
    assert started == sorted(set(started))
    if missed == "all" and overlap == "queue":
        everything = all_due(kept, NEW_YEAR, latest)
        assert started == everything[: len(started)]
        assert len(started) == len(everything) or len(everything) > MAX_CATCH_UP


def all_due(one: Schedule, begin: datetime, now: datetime) -> list[datetime]:
    """Every due time in the interval, found by walking."""
    found: list[datetime] = []
    following = next_after(one.cron, begin)
    while following is not None and following <= now:
        found.append(following)
        following = next_after(one.cron, following)
    return found


def due_lately(due: list[datetime], now: datetime) -> list[datetime]:
    return [one for one in due if now - one <= timedelta(seconds=60)]


def test_punctual_timers_start_every_time_under_each_policy() -> None:
    for missed in ("latest", "all", "skip"):
        kept = schedule("*/10 * * * *", missed=missed)
        started: list[datetime] = []
        following = next_due(kept, NEW_YEAR)
        while following is not None and following < at(1000):
            fired = fire(kept, following + timedelta(seconds=0.2), previous_open=False)
            started += [one.due for one in fired.starts]
            kept, following = fired.schedule, fired.next
        assert started == [at(minute) for minute in range(10, 1000, 10)]
