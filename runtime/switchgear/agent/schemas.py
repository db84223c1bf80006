"""What an agent offers, as data: schemas from its types, descriptions from its docstrings, and its pools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from switchgear import ids
from switchgear.contract.announcement import Offer, TopicTrigger
from switchgear.contract.cron import Cron
from switchgear.contract.topic import Topic
from switchgear.errors import UsageError

if TYPE_CHECKING:
    from switchgear.agent.declare import Agent, Declared


def offer(agent: Agent, declared: Declared[Any, Any]) -> Offer:
    """The capability as it is announced. Raises UsageError for types that have no JSON schema."""
    given, returned = _schema(declared, declared.input), _schema(declared, declared.output)
    taken, made = _digest(given), _digest(returned)
    return Offer(
        name=declared.name,
        version=agent.version,
        pool=_pool(agent, declared.name, taken, made),
        input_digest=taken,
        output_digest=made,
        input_schema=given,
        output_schema=returned,
        description=declared.description,
        concurrency=declared.concurrency,
        timeout=declared.timeout,
        retry=declared.retry,
        calls=tuple(sorted(declared.calls)),
        cleanup=declared.cleanup,
        crons=tuple(one.trigger() for one in declared.on if isinstance(one, Cron)),
        topics=tuple(
            TopicTrigger(topic=one.name, durable=one.durable)
            for one in declared.on
            if isinstance(one, Topic)
        ),
    )


def _schema(declared: Declared[Any, Any], kind: Any) -> dict[str, Any]:
    try:
        schema = msgspec.json.schema(kind)
    except TypeError as error:
        raise UsageError(
            f"{declared.name}: {kind!r} has no JSON schema",
            why=str(error),
            fix="use msgspec structs, dataclasses or plain types",
        ) from error
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _digest(schema: dict[str, Any]) -> str:
    return ids.digest(json.dumps(schema, sort_keys=True).encode())


def _pool(agent: Agent, capability: str, taken: str, made: str) -> str:
    """Instances that are interchangeable share a pool: same agent, version, labels, types."""
    facts = json.dumps(
        [agent.name, agent.version, sorted(agent.labels.items()), capability, taken, made]
    )
    return f"{agent.name[:50]}-{ids.short_digest(facts.encode())}"
