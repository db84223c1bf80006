"""The AsyncAPI 3 document: which message goes where, and who sends and receives it.

Addresses come from the builders in `subjects`; payloads refer to the schema files beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from switchgear.contract import subjects
from switchgear.contract.entries import ENTRIES
from switchgear.contract.export import catalog
from switchgear.contract.export.channels import SCOPE, Channel, channels, kept
from switchgear.contract.stored import EXPECTED, EXPECTED_SCOPE

VERSION = "3.0.0"
BINDING: dict[str, Any] = {"nats": {"bindingVersion": "0.1.0"}}

PARAMETERS: dict[str, dict[str, Any]] = {
    "agent": {"description": "Name of an agent, the service that offers capabilities."},
    "capability": {"description": "Name of a capability, such as check-repo."},
    "event": {
        "description": "What happened to the task.",
        "enum": [name for name in ENTRIES if name != "dispatched"],
    },
    "instance": {"description": "Id of one running process of an agent."},
    "kind": {
        "description": "What the timer is for: deadline, retry, wait, capacity, cleanup, cron; of a "
        "wake: child, turn, capacity."
    },
    "name": {"description": "Of a schedule or lease; the id of an order."},
    "owner": {"description": "The principal that submitted the root of the run."},
    "pool": {"description": "Instances that are interchangeable: the target of a dispatch."},
    "principal": {"description": "Who asks."},
    "priority": {"description": "Lane of the dispatch.", "enum": list(subjects.PRIORITIES)},
    "task": {"description": "Id of the task."},
    "topic": {"description": "Name of a topic."},
}
"""Every placeholder of an address is one token of [A-Za-z0-9_-]{1,64}."""


class Use(NamedTuple):
    """That a role sends or receives on a channel."""

    role: str
    action: str
    channel: str
    summary: str
    messages: tuple[str, ...]
    queue: str = ""
    reply: tuple[str, ...] = ()


_SENDS: dict[str, tuple[str, ...]] = {
    "client": ("submitted", "signalled", "cancel-requested"),
    "agent": (
        "submitted",
        "taken-over",
        "released",
        "checkpoint",
        "waiting",
        "attempt-failed",
        "completed",
        "cancelled",
        "expired",
    ),
    "coordinator": (
        "rejected",
        "dispatched",
        "waiting",
        "cancel-requested",
        "dead",
        "cancelled",
        "expired",
    ),
}
"""Role -> the events that it appends."""

_CONSUMES = ("submitted", "attempt-failed", "waiting", "signalled", "cancel-requested")
"""Events that coordinators consume."""

_TOPICS = ("topic", "topic-to", "cast", "cast-to")
_VALUE = ("value", "problem")
"""What a direct request is answered with: any JSON, or an error."""
_QUEUES = {"coordinator": "coordinators", "observer": "observe"}
"""Queue groups of those who answer."""


def uses() -> list[Use]:
    """Who does what, role by role."""
    found = [
        Use(role, "send", f"task-{event}", f"Append `{event}` with compare-and-set.", (event,))
        for role, events in _SENDS.items()
        for event in events
    ]
    found += [
        Use("coordinator", "receive", f"task-{event}", f"Consume `{event}`.", (event,))
        for event in _CONSUMES
    ]
    found += _core_uses()
    for verb in catalog.VERBS:
        asker = "agent" if verb.name in ("lanes", "holder") else "client"
        reply = (verb.answer.name, "problem")
        query = (verb.query.name,)
        channel = f"api-{verb.name}"
        found += [
            Use(asker, "send", channel, f"Ask `{verb.name}`.", query, reply=reply),
            Use(
                verb.by,
                "receive",
                channel,
                f"Answer `{verb.name}`.",
                query,
                _QUEUES[verb.by],
                reply,
            ),
        ]
    return found


def _core_uses() -> list[Use]:
    known = channels()

    def use(role: str, action: str, channel: str, summary: str) -> Use:
        return Use(role, action, channel, summary, known[channel].messages)

    return [
        use("client", "receive", "live", "Watch the tasks of one owner."),
        use("client", "receive", "live-dispatched", "Watch the dispatches of one owner's tasks."),
        use("client", "receive", "progress", "Watch the progress of one owner's tasks."),
        use("agent", "send", "announce", "Announce on start, on change and every 10 s."),
        use("client", "receive", "chunk", "Hear what one owner's tasks stream."),
        *(use("client", "send", one, "Publish on a topic.") for one in _TOPICS),
        *(use("client", "receive", one, "Hear a topic.") for one in _TOPICS),
        use("client", "send", "request", "Ask an agent directly.")._replace(reply=_VALUE),
        use("agent", "receive", "task-dispatched", "Pull work from the lanes of the own offers."),
        use("agent", "receive", "control", "Obey commands."),
        use("agent", "receive", "cancel", "Stop a task that runs here."),
        use("agent", "send", "progress", "Report progress."),
        use("agent", "send", "chunk", "Stream."),
        use("agent", "send", "crash", "Tell how an instance died: by who watched it."),
        use("agent", "send", "due", "Wake who waits for a task's end: its parent, the next one."),
        *(use("agent", "send", one, "Publish on a topic.") for one in _TOPICS),
        *(use("agent", "receive", one, "Listen to a topic.") for one in _TOPICS),
        use("agent", "receive", "request", "Answer, as one of the agent's instances.")._replace(
            reply=_VALUE
        ),
        use("coordinator", "receive", "announce", "Watch the registry."),
        use("coordinator", "send", "timer", "Arm a timer."),
        use("coordinator", "send", "due", "Wake a task."),
        use("coordinator", "receive", "due", "Decide again about a task."),
        *(use("coordinator", "receive", one, "Start what it triggers.") for one in _TOPICS),
        *(use("coordinator", "send", one, "Keep it, by compare-and-set.") for one in kept()),
        *(use("coordinator", "receive", one, "Read it.") for one in kept()),
        use("coordinator", "send", "task-submitted", "Start a task at its time, or by a message."),
        use("coordinator", "send", "task-signalled", "Signal for who may, but is not the owner."),
        use("coordinator", "receive", "crash", "Learn how a former holder died."),
        use("coordinator", "send", "cancel", "Tell a capability's instances of a cancel."),
        use("coordinator", "send", "control", "Tell an instance to drain."),
    ]


COMPARE_AND_SET: dict[str, Any] = {
    "type": "object",
    "description": (
        "Both stand in the block once, in exact case; without them an entry is void. "
        "`Nats-Msg-Id` is never used."
    ),
    "properties": {
        EXPECTED: {
            "type": "string",
            "pattern": "^(0|[1-9][0-9]{0,18})$",
            "description": "Sequence of the scope's last entry that the writer has seen; or 0.",
        },
        EXPECTED_SCOPE: {
            "type": "string",
            "pattern": r"^sg\.task(\.[A-Za-z0-9_-]{1,64}){3}\.>$",
            "description": f"The task's scope, {SCOPE}, spelled exactly so.",
        },
    },
    "required": [EXPECTED, EXPECTED_SCOPE],
}
TTL: dict[str, Any] = {
    "type": "object",
    "properties": {"Nats-TTL": {"type": "string", "const": "30s"}},
    "required": ["Nats-TTL"],
}
SCHEDULE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "Nats-Schedule": {
            "type": "string",
            "description": "`@at` and a moment in RFC 3339, in full precision.",
        },
        "Nats-Schedule-Target": {"type": "string", "description": "The due subject of the task."},
    },
    "required": ["Nats-Schedule", "Nats-Schedule-Target"],
}


def document(examples: dict[str, Struct], descriptions: dict[str, str]) -> dict[str, Any]:
    """The whole document; `descriptions` are those of the messages' schemas, by name."""
    return {
        "asyncapi": VERSION,
        "id": "urn:switchgear:v1",
        "info": {
            "title": "Switchgear",
            "version": "1",
            "description": (
                "The protocol between clients, agents and coordinators on one NATS account. "
                "docs/reference/protocol.md says what no schema can: order, states and duties."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "mesh": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "Any NATS server from 2.12.6 with JetStream enabled.",
            }
        },
        "channels": {name: _channel(one) for name, one in channels().items()},
        "operations": {
            f"{use.role}-{use.action}s-{use.channel}": _operation(use) for use in uses()
        },
        "components": {
            "parameters": PARAMETERS,
            "messageTraits": {"compareAndSet": {"headers": COMPARE_AND_SET}},
            "messages": _messages(examples, descriptions),
        },
    }


def _channel(channel: Channel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "address": channel.address,
        "summary": channel.summary,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
    }
    tokens = (channel.address or "").split(".")
    parameters = {
        token[1:-1]: {"$ref": f"#/components/parameters/{token[1:-1]}"}
        for token in tokens
        if token.startswith("{")
    }
    return found | ({"parameters": parameters} if parameters else {})


def _operation(use: Use) -> dict[str, Any]:
    nats = BINDING["nats"] | ({"queue": use.queue} if use.queue else {})
    found: dict[str, Any] = {
        "action": use.action,
        "summary": use.summary,
        "channel": {"$ref": f"#/channels/{use.channel}"},
        "messages": [{"$ref": f"#/channels/{use.channel}/messages/{one}"} for one in use.messages],
        "tags": [{"name": use.role}],
        "bindings": {"nats": nats},
    }
    if use.reply:
        found["reply"] = {
            "channel": {"$ref": "#/channels/answers"},
            "messages": [{"$ref": f"#/channels/answers/messages/{one}"} for one in use.reply],
        }
    return found


def _messages(examples: dict[str, Struct], descriptions: dict[str, str]) -> dict[str, Any]:
    encode = msgspec.json.Encoder(order="deterministic").encode
    entries = {message.name for message in catalog.ENTRY_MESSAGES}
    found: dict[str, Any] = {}
    for message in catalog.messages():
        name = message.name
        one: dict[str, Any] = {
            "name": name,
            "summary": descriptions[name],
            "payload": {"$ref": f"./{name}.json"},
            "examples": [{"name": name, "payload": msgspec.json.decode(encode(examples[name]))}],
        }
        if name in entries:
            one["traits"] = [{"$ref": "#/components/messageTraits/compareAndSet"}]
        elif name == "announcement":
            one["headers"] = TTL
        found[name] = one
    empty = {"type": "object", "description": "An empty object, or hints for the coordinator."}
    found["timer"] = {"name": "timer", "headers": SCHEDULE, "payload": empty}
    found["due"] = {"name": "due", "payload": empty}
    found["value"] = {"name": "value", "payload": {"description": "Any JSON."}}
    own = {"type": "object", "description": "Of coordinators alone; may change with any release."}
    found["coordinators-own"] = {"name": "coordinators-own", "payload": own}
    return found
