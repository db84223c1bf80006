"""What clients say beside tasks: messages on topics, direct requests, and what they hear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from switchgear.bus.port import Message as Heard
from switchgear.client.feed import MAX_WAITING, Feed
from switchgear.client.mesh import Mesh
from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import Problem, TopicMessage
from switchgear.contract.topic import Message, Topic
from switchgear.errors import NotFound, ProtocolError, SwitchgearError, Unavailable, UsageError
from switchgear.testing.site import START, Site


@dataclass
class Tag:
    ref: str


TAGGED = Topic("tagged", Tag)
SEEN = Topic("seen", Tag, durable=False, ttl=timedelta(seconds=10))


@asynccontextmanager
async def two() -> AsyncGenerator[tuple[Mesh, Mesh]]:
    """Two clients, alice and bob, of a mesh without coordinators."""
    async with Site() as site:
        meshes = [Mesh(site.bus(name), name, clock=site.clock) for name in ("alice", "bob")]
        for mesh in meshes:
            await mesh.start()
        yield meshes[0], meshes[1]
        for mesh in meshes:
            await mesh.close()


async def first(feed: Feed[Any], count: int = 1) -> list[Any]:
    """The next values."""
    found: list[Any] = []
    async with asyncio.timeout(60):
        async for value, _ in feed:
            found.append(value)
            if len(found) == count:
                break
    return found


def told(message: Heard) -> TopicMessage:
    return codec.decode(message.data, TopicMessage, limit=limits.MAX_ENTRY)


def foreign(id: str, value: Any, **fields: Any) -> bytes:
    """A message as some other client may send it."""
    raw = Raw(codec.encode(value))
    return codec.encode(TopicMessage(id=id, sender="x", time=START, value=raw, **fields))


async def answers(mesh: Mesh, agent: str, *given: Any) -> list[Any]:
    """Serve direct requests as an agent does, with these answers; returns what was asked."""
    asked: list[Any] = []
    left = iter(given)

    def receive(message: Heard) -> None:
        asked.append(told(message))
        mesh.bus.core.publish(message.reply, codec.encode(next(left)))

    await mesh.bus.core.subscribe(subjects.request(agent), receive)
    return asked


# topics


@pytest.mark.parametrize("topic", [TAGGED, SEEN])
async def test_message_is_heard_with_its_value_its_id_and_who_sent_it(topic: Topic[Tag]) -> None:
    async with two() as (alice, bob), bob.subscribe(topic) as feed:
        sent = await alice.publish(topic, Tag("v1"))
        async for value, message in feed:
            assert value == Tag("v1")
            assert isinstance(message, Message)
            assert (message.id, message.sender) == (sent, "alice")
            assert message.time.tzinfo is not None
            break


async def test_topic_by_its_name_carries_plain_data_durable_or_not() -> None:
    async with two() as (alice, bob), bob.subscribe("tagged") as feed:
        await alice.publish("tagged", {"ref": "v1"})
        await alice.publish(Topic("tagged", Tag, durable=False), Tag("v2"))
        assert await first(feed, 2) == [{"ref": "v1"}, {"ref": "v2"}]


async def test_feed_without_a_block_hears_from_its_first_step_and_leaves_with_its_loop() -> None:
    async with two() as (alice, bob):
        feed = bob.subscribe(TAGGED)
        await alice.publish(TAGGED, Tag("before"))
        hearing = asyncio.create_task(first(feed))
        await asyncio.sleep(1)
        await alice.publish(TAGGED, Tag("after"))
        assert await hearing == [Tag("after")]


async def test_message_published_twice_with_one_key_is_heard_once() -> None:
    async with two() as (alice, bob), bob.subscribe(TAGGED) as feed:
        ids = [await alice.publish(TAGGED, Tag("v1"), key="v1") for _ in range(2)]
        ids.append(await alice.publish(TAGGED, Tag("v2"), key="v2"))
        assert await first(feed, 2) == [Tag("v1"), Tag("v2")]
        assert len(set(ids)) == 2


async def test_one_key_of_two_principals_or_topics_is_two_messages() -> None:
    async with two() as (alice, bob):
        ids = {
            await alice.publish("a", 1, key="k"),
            await alice.publish("b", 1, key="k"),
            await bob.publish("a", 1, key="k"),
        }
        assert len(ids) == 3


async def test_what_is_foreign_expired_or_addressed_is_not_heard() -> None:
    async with two() as (alice, bob), bob.subscribe(TAGGED) as feed:
        alice.bus.core.publish(subjects.topic("tagged"), b"{]")
        await alice.publish("tagged", {"no": "ref"})
        await alice.publish(TAGGED, Tag("to an agent"), to="builder")
        late = foreign("late", Tag("late"), expires=START)
        alice.bus.core.publish(subjects.topic("tagged"), late)
        await alice.publish(TAGGED, Tag("good"))
        assert await first(feed) == [Tag("good")]


async def test_slow_reader_loses_the_oldest_not_the_memory() -> None:
    async with two() as (alice, bob), bob.subscribe("numbers") as feed:
        for number in range(MAX_WAITING + 5):
            alice.bus.core.publish(subjects.cast("numbers"), foreign(f"m{number}", number))
        await asyncio.sleep(1)
        assert (await first(feed))[0] == 5


@pytest.mark.parametrize(
    ("topic", "value", "options", "what"),
    [
        ("tagged", object(), {}, "cannot be written as JSON"),
        (TAGGED, 7, {}, "does not fit the topic tagged"),
        ("tagged", "x" * limits.MAX_MESSAGE, {}, "bytes"),
        ("tagged", 1, {"priority": "urgent"}, "no priority"),
        ("tagged", 1, {"ttl": timedelta(seconds=-1)}, "over at once"),
    ],
)
async def test_message_that_nobody_could_use_is_refused(
    topic: Any, value: Any, options: dict[str, Any], what: str
) -> None:
    async with two() as (alice, _):
        with pytest.raises(UsageError, match=what):
            await alice.publish(topic, value, **options)


@pytest.mark.parametrize("options", [{"topic": "a.b"}, {"topic": "a", "to": "b.c"}])
async def test_names_that_are_no_tokens_are_refused(options: dict[str, Any]) -> None:
    async with two() as (alice, _):
        with pytest.raises(ProtocolError):
            await alice.publish(value=1, **options)
        with pytest.raises(ProtocolError):
            alice.subscribe("a.>")


# requests


async def test_request_is_answered_with_a_value_of_the_type() -> None:
    async with two() as (alice, bob):
        asked = await answers(bob, "builder", Tag("built"))
        assert await alice.request("builder", Tag("v1"), Tag) == Tag("built")
        assert (asked[0].sender, bytes(asked[0].value)) == ("alice", b'{"ref":"v1"}')
        assert asked[0].expires is not None


async def test_request_that_nobody_takes_is_unavailable() -> None:
    async with two() as (alice, bob):
        with pytest.raises(Unavailable):
            await alice.request("builder", 1, int)
        unheard: list[Heard] = []
        await bob.bus.core.subscribe(subjects.request("builder"), unheard.append)
        with pytest.raises(Unavailable):
            await alice.request("builder", 1, int, timeout=timedelta(seconds=3))


async def test_problem_in_an_answer_becomes_its_error() -> None:
    async with two() as (alice, bob):
        missing = Problem(code="SG1401", what="no such tag")
        await answers(bob, "builder", missing, Problem(code="SG1501", what="refused"))
        with pytest.raises(NotFound, match="no such tag"):
            await alice.request("builder", 1, object)
        with pytest.raises(SwitchgearError) as refused:
            await alice.request("builder", 1, object)
        assert refused.value.code == "SG1501"


async def test_value_that_looks_like_a_problem_is_still_a_value() -> None:
    async with two() as (alice, bob):
        await answers(bob, "builder", {"code": "EUR", "what": "a currency"})
        assert await alice.request("builder", 1, object) == {"code": "EUR", "what": "a currency"}


async def test_answer_of_another_type_is_refused() -> None:
    async with two() as (alice, bob):
        await answers(bob, "builder", 7)
        with pytest.raises(ProtocolError):
            await alice.request("builder", 1, Tag)
