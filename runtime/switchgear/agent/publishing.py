"""Publishes to topics from a handler: recorded, so that a message is sent once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from switchgear import ids
from switchgear.agent.digests import of_values
from switchgear.contract import codec, limits, subjects
from switchgear.contract.codes import REJECTIONS
from switchgear.contract.queries import TopicMessage
from switchgear.contract.topic import Topic
from switchgear.errors import Permanent, UsageError
from switchgear.tasks import payload

if TYPE_CHECKING:
    from switchgear.agent.run import Run


async def publish(run: Run, topic: Topic[Any], value: Any, key: str, to: str | None) -> None:
    """Send a message once. Raises UsageError for one over 256 KiB, Permanent below too many levels, Unavailable."""
    data = payload.encode_value(value, f"a message on {topic.name}")
    if len(data) > limits.MAX_MESSAGE:
        raise UsageError(
            f"a message of {len(data)} bytes on {topic.name}",
            why=f"{limits.MAX_MESSAGE} bytes are the limit",
        )
    if to is not None:
        subjects.token(to, "agent")
    digest = of_values(topic.name, to, msgspec.Raw(data))
    if run.recording.find(key, "publish", digest) is not None:
        return
    attempt = run.attempt
    depth = attempt.dispatched.depth + 1
    if depth > limits.MAX_DEPTH:
        what, fix = REJECTIONS["SG1208"]
        error = Permanent(what, why=f"{limits.MAX_DEPTH} levels are the limit", fix=fix)
        error.code = "SG1208"
        raise error
    await run.begin()
    with run.waits.working():
        now = attempt.clock.now()
        message = TopicMessage(
            # the same in every run: a message that was sent before its checkpoint is not heard twice
            id=ids.derived_id("publish", run.task.id, key),
            sender=run.services.principal,
            time=now,
            value=msgspec.Raw(data),
            priority=attempt.subject.priority or "normal",
            expires=None if topic.ttl is None else now + topic.ttl,
            depth=depth,
            trace=attempt.dispatched.trace,
        )
        body = codec.encode(message)
        if topic.durable:
            stored_as = subjects.topic(topic.name, to)
            await attempt.bus.topics.publish(stored_as, body, id=message.id, ttl=topic.ttl)
        else:
            attempt.bus.core.publish(subjects.cast(topic.name, to), body)
        took = attempt.clock.now() - now
        await run.recording.done(key, "publish", digest, duration=took)
