"""`switchgear topic`: publish, tail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    from datetime import timedelta


def publish(
    topic: str,
    value: Annotated[str, Parameter(allow_leading_hyphen=True)] = "null",
    /,
    *,
    key: str | None = None,
    to: str | None = None,
    priority: Literal["high", "normal", "low"] = "normal",
    ttl: str | None = None,
    live: bool = False,
    common: Common = COMMON,
) -> int:
    """Publish a message.

    Args:
        topic: Its name.
        value: JSON, @FILE that holds it, or - for the standard input.
        key: However often it is published with this key, it starts its tasks once.
        to: Only for this agent.
        priority: Of the tasks that it starts.
        ttl: Dropped when it is older than this, such as 10m.
        live: Store nothing: only who listens now hears it. For topics that are not durable.
        common: Shared by all commands.
    """
    from switchgear.cli import values

    telling = _Telling(topic, values.task_input(value), key, to, priority, live=live)
    return shared.run(_publish(telling, values.duration(ttl) if ttl else None, common))


def tail(topic: str, /, *, count: int | None = None, common: Common = COMMON) -> int:
    """Show a topic's messages as they are published.

    Args:
        topic: Its name.
        count: End after so many; without it, Ctrl-C ends it.
        common: Shared by all commands.
    """
    return shared.run(_tail(topic, count, common))


class _Telling(NamedTuple):
    """A message as it was typed, checked."""

    topic: str
    value: Any
    key: str | None
    to: str | None
    priority: str
    live: bool


async def _publish(telling: _Telling, ttl: timedelta | None, common: Common) -> int:
    from switchgear.contract.topic import Topic

    topic: Topic[Any] = Topic(telling.topic, object, durable=not telling.live)
    async with shared.joined(common) as mesh:
        message = await mesh.publish(
            topic,
            telling.value,
            key=telling.key,
            to=telling.to,
            priority=telling.priority,
            ttl=ttl,
        )
    document = {"topic": telling.topic, "id": message}
    common.output.put("published", document, lambda: message)
    return 0


async def _tail(topic: str, count: int | None, common: Common) -> int:
    output = common.output
    left = count
    async with shared.joined(common) as mesh, mesh.subscribe(topic) as feed:
        output.say(f"hearing {topic}")
        async for value, message in feed:
            document = {
                "topic": topic,
                "id": message.id,
                "sender": message.sender,
                "time": message.time,
                "value": value,
            }
            if output.as_json:
                output.line("topic-message", document)
            else:
                output.show(_line(document))
            left = None if left is None else left - 1
            if left is not None and left <= 0:
                break
    return 0


def _line(document: dict[str, Any]) -> str:
    import msgspec

    data = msgspec.json.encode(document["value"]).decode()
    return f"{document['time']:%H:%M:%S} {document['sender']} {data}"
