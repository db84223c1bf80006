"""Watched processes: what they said, what is passed on, who is watched; and who hears of a death."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta

import pytest

from switchgear import Agent, Context
from switchgear.agent import crash_publishing
from switchgear.agent.crash_reporter import BACKLOG, KEPT, Backlog, Served, Tail, served
from switchgear.cli import serves_agent
from switchgear.contract import codec, entries, limits, subjects
from switchgear.contract.crash_report import CrashReport
from switchgear.contract.queries import Holder, HolderQuery
from switchgear.tasks.asking import ask
from switchgear.testing.site import START
from tests.unit.agent.stage import Gate, Number, Stage, stage, until


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe without a reader that waits: its read end, its write end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(writing)


def test_short_words_are_kept_whole() -> None:
    tail = Tail()
    tail.add(b"first\n")
    tail.add(b"last\xff\n")
    assert tail.text() == "first\nlast\ufffd"


def test_of_long_words_the_last_whole_lines_are_kept() -> None:
    tail = Tail()
    for number in range(10_000):
        tail.add(f"line {number}\n".encode())
    lines = tail.text().splitlines()
    assert lines[0] == f"line {10_000 - len(lines)}"
    assert lines[-1] == "line 9999"
    assert KEPT - 20 < len(tail.text()) < KEPT


def test_one_endless_line_is_kept_by_its_end() -> None:
    tail = Tail()
    tail.add(b"x" * KEPT + b"end")
    assert tail.text().endswith("xend")


def test_newest_connection_counts_and_leaving_belongs_to_it() -> None:
    assert served(b"") == Served()
    assert served(b"nats://a\0one\0one-1\n") == Served("nats://a", "one", "one-1")
    assert served(b"nats://a\0one\0one-1\nleft\n").has_left
    assert served(b"nats://a\0one\0one-1\nleft\nnats://a\0one\0one-2\n") == Served(
        "nats://a", "one", "one-2"
    )


def test_what_a_reader_takes_is_passed_on_in_order(pipe: tuple[int, int]) -> None:
    backlog = Backlog(pipe[1])
    backlog.add(b"a" * 5000)
    backlog.add(b"b")
    while backlog.waiting:
        backlog.pass_on()
    assert os.read(pipe[0], 10_000) == b"a" * 5000 + b"b"


def test_reader_that_takes_nothing_costs_what_comes_then_and_learns_how_much(
    pipe: tuple[int, int],
) -> None:
    backlog = Backlog(pipe[1])
    backlog.add(b"a" * BACKLOG)
    assert backlog.is_full
    backlog.give_up()
    assert not backlog.is_full
    backlog.add(b"lost")
    got = b""
    while backlog.waiting:
        backlog.pass_on()
        got += os.read(pipe[0], BACKLOG)
    assert got == b"a" * BACKLOG + b"\n[4 bytes of error output dropped]\n"
    backlog.add(b"again")
    assert backlog.waiting


def test_reader_that_left_is_no_reason_to_wait(pipe: tuple[int, int]) -> None:
    backlog = Backlog(pipe[1])
    os.close(pipe[0])
    backlog.add(b"a")
    backlog.pass_on()
    backlog.add(b"b")
    assert not backlog.waiting


@pytest.mark.parametrize(
    ("code", "told"),
    [(3, "ended with exit code 3"), (-11, "was ended by SIGSEGV"), (-250, "was ended by signal 250")],
)  # fmt: skip
def test_end_is_told_in_words(code: int, told: str) -> None:
    assert crash_publishing.how(code) == told


@pytest.mark.parametrize(
    ("arguments", "is_watched"),
    [
        ("agent run hello:agent", True),
        ("--url nats://a --json agent run hello:agent", True),
        ("--context=here agent run hello:agent", True),
        ("agent run --help", False),
        ("agent ls", False),
        ("task submit agent run", False),
        ("--url agent run", False),
        ("", False),
    ],
)
def test_only_the_command_that_serves_an_agent_is_watched(arguments: str, is_watched: bool) -> None:  # noqa: FBT001
    assert serves_agent(arguments.split()) is is_watched


def gated(gate: Gate) -> Agent:
    """An agent whose handler waits until the gate opens."""
    agent = Agent("gated", version="1.0.0")

    @agent.capability("pass", timeout=None)
    async def through(value: Number, ctx: Context) -> Number:
        del ctx
        await gate()
        return value

    assert through.name == "pass"
    return agent


def report(on: Stage, agent: str, instance: str) -> None:
    """Tell the broker how an instance died, as its watcher does."""
    told = CrashReport(
        agent=agent,
        instance=instance,
        time=START,
        ended="was ended by SIGSEGV",
        last_words=f"words of {instance}",
    )
    on.bus.core.publish(subjects.crash(agent, instance), codec.encode(told))


async def test_words_that_come_a_moment_late_are_waited_for() -> None:
    """The watcher may still connect when the next holder ends the task already: the broker is faster."""
    gate = Gate()
    async with stage() as on:
        handle = await on.mesh.submit("pass", Number(1))
        last = ""
        for crashes in range(3):
            member = await on.join(gated(gate))
            await until(lambda count=crashes: gate.entered == count + 1)
            await on.site.crash(member)
            report(on, "gated", f"other-{crashes}")
            last = member.bus.name
        await on.join(gated(gate))
        await until(lambda: on.events(handle.id).count("taken-over") == 3)
        await asyncio.sleep(0.7)
        report(on, "gated", last)
        await until(lambda: "attempt-failed" in on.events(handle.id))
        ends = [one.entry for one in on.history(handle.id).valid]
        (failure,) = [one.error for one in ends if isinstance(one, entries.AttemptFailed)]
        assert failure.last_words == f"words of {last}"
        assert failure.why == "the last one was ended by SIGSEGV"


async def test_death_of_who_ends_a_poisoned_attempt_is_no_crash_of_its_handler() -> None:
    """Whoever took over only to end it ran nothing; the words asked for are still those of the last handler's."""
    gate = Gate()
    async with stage() as on:
        handle = await on.mesh.submit("pass", Number(1))
        last = ""
        for crashes in range(limits.MAX_CRASHES + 1):
            member = await on.join(gated(gate))
            await until(lambda count=crashes: gate.entered == count + 1)
            await on.site.crash(member)
            last = member.bus.name
        for deaths in range(2):
            member = await on.join(gated(gate))
            taken = limits.MAX_CRASHES + 1 + deaths
            await until(lambda count=taken: on.events(handle.id).count("taken-over") == count)
            await on.site.crash(member)
        report(on, "gated", last)
        await on.join(gated(gate))
        history = await on.reach(handle.id, "attempt-failed")
        found = [one.entry for one in history.valid]
        hows = [one.how for one in found if isinstance(one, entries.TakenOver)]
        assert hows == ["crash"] * (limits.MAX_CRASHES + 1) + ["released"] * 2
        (failure,) = [one.error for one in found if isinstance(one, entries.AttemptFailed)]
        assert failure.message == "3 agents died while they ran this attempt"
        assert failure.last_words == f"words of {last}"
        assert gate.entered == limits.MAX_CRASHES + 1


async def test_words_are_told_to_instances_of_the_same_agent_only() -> None:
    """Error output can hold secrets."""
    async with stage() as on:
        report(on, "gated", "gated-9")
        query = HolderQuery(task="t1", former="gated-9")
        for principal, words in (("gated", "words of gated-9"), ("other", "")):
            told = await ask(
                on.bus.core, "holder", principal, query, Holder, timeout=timedelta(seconds=1)
            )
            assert told.last_words == words
