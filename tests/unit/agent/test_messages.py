"""What handlers send beside results: topic messages, chunks, log lines; and who listens and answers."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import msgspec
import pytest

from switchgear import (
    Agent,
    Context,
    Cron,
    Message,
    Permanent,
    Retry,
    TaskDead,
    Topic,
    UsageError,
    command,
)
from switchgear.agent.chunks import PER_SECOND
from switchgear.agent.schemas import offer
from switchgear.bus import port
from switchgear.contract import codec, limits, subjects
from switchgear.contract.announcement import Offer
from switchgear.contract.queries import Chunk, Problem, Progress, TopicMessage
from tests.unit.agent.stage import Number, Stage, Text, stage, until

AT_ONCE = Retry(initial=timedelta(), max_delay=timedelta())
tagged = Topic("tagged", Text)
pinged = Topic("pinged", Number, durable=False)


async def heard(on: Stage, subject: str) -> list[port.Message]:
    """All core messages on a subject from now on."""
    messages: list[port.Message] = []
    await on.bus.core.subscribe(subject, messages.append)
    return messages


def message(on: Stage, value: bytes, *, lasts: float | None = None) -> bytes:
    """A message from alice, that expires after so many seconds."""
    now = on.site.clock.now()
    expires = None if lasts is None else now + timedelta(seconds=lasts)
    return codec.encode(
        TopicMessage(id="m-1", sender="alice", time=now, value=msgspec.Raw(value), expires=expires)
    )


async def test_message_is_published_once_whatever_happens_to_the_handler() -> None:
    """A retry finds it recorded; its id derives from task and key; it carries the task's depth."""
    agent = Agent("publisher", version="1.0.0")

    @agent.capability("work", retry=AT_ONCE)
    async def work(value: Text, ctx: Context) -> None:
        await ctx.publish(tagged, value)
        await ctx.publish(pinged, Number(1), to="other")
        if ctx.attempt == 1:
            raise OSError("again")

    async with stage(agent) as on:
        durable = await heard(on, subjects.topic("tagged"))
        plain = await heard(on, subjects.cast("pinged", "other"))
        await on.mesh.call(work, Text("v1"))
        await until(lambda: bool(plain))
    [sent] = [codec.decode(one.data, TopicMessage) for one in durable]
    assert (sent.sender, sent.depth, bytes(sent.value)) == ("publisher", 1, b'{"text":"v1"}')
    assert len(plain) == 1


async def test_every_instance_hears_a_topic() -> None:
    """Durable and plain ones, addressed to all or to its agent; what has expired is dropped."""
    agent = Agent("listener", version="1.0.0")
    got: list[tuple[str, str]] = []

    @agent.listen(tagged)
    async def on_tag(value: Text, told: Message) -> None:
        got.append((value.text, told.sender))

    @agent.listen(pinged)
    async def on_ping(value: Number, told: Message) -> None:
        got.append((str(value.n), told.id))
        raise OSError("logged, not more")

    async with stage(agent) as on:
        await on.join(agent)
        publish = on.bus.core.publish
        await on.bus.topics.publish(
            subjects.topic("tagged"), message(on, b'{"text":"a"}'), id="one"
        )
        publish(subjects.cast("pinged", "listener"), message(on, b'{"n":1}'))
        publish(subjects.cast("pinged", "somebody"), message(on, b'{"n":2}'))
        publish(subjects.cast("pinged"), message(on, b'{"n":3}', lasts=-1))
        publish(subjects.cast("pinged"), message(on, b'{"n":"no number"}'))
        publish(subjects.cast("pinged"), message(on, b'{"n":4}'))
        await until(lambda: len(got) == 6)
        await asyncio.sleep(1)
    assert sorted(got) == [
        ("1", "m-1"),
        ("1", "m-1"),
        ("4", "m-1"),
        ("4", "m-1"),
        ("a", "alice"),
        ("a", "alice"),
    ]


async def test_one_instance_answers_a_request() -> None:
    """With its value, or with the problem that its error stands for."""
    agent = Agent("oracle", version="1.0.0")
    asked: list[str] = []

    @agent.respond
    async def answer(question: Number, told: Message) -> Text:
        asked.append(told.sender)
        if question.n < 0:
            raise Permanent("not below zero", fix="ask for more")
        return Text(str(question.n))

    async with stage(agent) as on:
        await on.join(agent)
        place, patience = subjects.request("oracle"), timedelta(seconds=5)
        good = await on.bus.core.request(place, message(on, b'{"n":3}'), timeout=patience)
        bad = await on.bus.core.request(place, message(on, b'{"n":-3}'), timeout=patience)
        odd = await on.bus.core.request(place, message(on, b'"x"'), timeout=patience)
    assert good == b'{"text":"3"}'
    problem = codec.decode(bad, Problem)
    assert (problem.code, problem.what, problem.fix) == (
        "SG1501",
        "not below zero",
        "ask for more",
    )
    assert codec.decode(odd, Problem).code == "SG1507"
    assert asked == ["alice", "alice"]


async def test_chunks_say_which_step_and_run_sent_them() -> None:
    """Numbered from 0 in each; also from a step in a thread."""
    agent = Agent("streamer", version="1.0.0")

    def threaded(ctx: Context) -> None:
        ctx.emit("t")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        ctx.emit("a")
        ctx.emit("b")
        await ctx.step("part", threaded, ctx)

    async with stage(agent) as on:
        messages = await heard(on, "sg.chunk.>")
        handle = await on.mesh.submit(work, Number(0))
        await handle.result()
        await until(lambda: len(messages) == 3)
        hold = on.history(handle.id).dispatched_at
    chunks = [codec.decode(one.data, Chunk) for one in messages]
    assert [(one.step, one.number, bytes(one.value)) for one in chunks] == [
        ("", 0, b'"a"'),
        ("", 1, b'"b"'),
        ("part", 0, b'"t"'),
    ]
    assert {one.run for one in chunks} == {hold}


async def test_chunks_are_bounded_in_size_and_rate(caplog: pytest.LogCaptureFixture) -> None:
    """A large one is a bug, too many are dropped with a word in the log."""
    agent = Agent("streamer", version="1.0.0")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        for n in range(PER_SECOND + 5):
            ctx.emit(n)
        if value.n:
            ctx.emit("x" * limits.MAX_CHUNK)

    async with stage(agent) as on:
        messages = await heard(on, "sg.chunk.>")
        await on.mesh.call(work, Number(0))
        await until(lambda: len(messages) >= PER_SECOND)
        with pytest.raises(TaskDead, match=r"16385|16386"):
            await on.mesh.call(work, Number(1))
    assert "chunks.dropped" in caplog.text
    assert len(messages) <= 2 * PER_SECOND


async def test_log_lines_and_output_of_commands_go_with_progress() -> None:
    """The newest few lines of the handler's own loggers, whatever the report said before."""
    agent = Agent("talker", version="1.0.0")
    log = logging.getLogger("somebody.else")

    @agent.capability("work")
    async def work(value: Number, ctx: Context) -> None:
        ctx.progress(0.5, "half")
        for n in range(value.n):
            log.warning("line %d", n)
        await ctx.run("it", command("sh", "-c", "echo out; echo err >&2"))

    async with stage(agent) as on:
        messages = await heard(on, "sg.progress.>")
        await on.mesh.call(work, Number(30))
        log.warning("not of a handler")
    reports = [codec.decode(one.data, Progress) for one in messages]
    lines = [(one.level, one.text) for report in reports for one in report.lines]
    assert {("stdout", "out"), ("stderr", "err"), ("warning", "line 29")} <= set(lines)
    assert all(len(report.lines) <= limits.MAX_LINES for report in reports)
    assert all("not of a handler" not in text for _, text in lines)
    assert (reports[-1].fraction, reports[-1].message) == (0.5, "half")


def test_triggers_and_cleanup_stand_in_the_offer_and_leave_the_pool_as_it_is() -> None:
    """Instances with and without them stay interchangeable for what is dispatched to them."""

    def offered(
        on: list[Topic[Text] | Topic[Number] | Cron], cleanup: timedelta = limits.CLEANUP
    ) -> Offer:
        agent = Agent("triggered", version="1.0.0")

        @agent.capability("work", on=on, cleanup=cleanup)
        async def work(value: Text, ctx: Context) -> None: ...

        return offer(agent, work)

    plain = offered([])
    rich = offered([tagged, Cron("0 * * * *", Text("x"))], timedelta(minutes=1))
    assert rich.pool == plain.pool
    assert [one.topic for one in rich.topics] == ["tagged"]
    assert [bytes(one.input) for one in rich.crons] == [b'{"text":"x"}']
    assert rich.cleanup == timedelta(minutes=1)
    for wrong in (pinged, Cron("0 * * * *", Number(1))):
        with pytest.raises(UsageError):
            offered([wrong])


def test_functions_of_another_shape_are_refused() -> None:
    """A listener takes the topic's type and a message; an agent answers in one function."""
    agent = Agent("listener", version="1.0.0")

    async def wrong(value: Number, told: Message) -> Text:
        return Text("")

    async def alone(value: Text) -> None: ...

    def plain(value: Text, told: Message) -> None: ...

    for function in (wrong, alone, plain):
        with pytest.raises(UsageError):
            agent.listen(tagged)(function)  # type: ignore[arg-type]  # the fault under test
    agent.respond(wrong)
    with pytest.raises(UsageError, match="two functions"):
        agent.respond(wrong)
