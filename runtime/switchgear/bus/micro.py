"""Answers to NATS micro's discovery (ADR-32), so that the `nats` CLI sees every instance.

Own code on core messages: importing nats.micro costs more than these lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from switchgear.bus.frames import rfc3339
from switchgear.bus.port import Core, Message, Subscription
from switchgear.clock import SYSTEM, Clock

PREFIX: Final = "$SRV"

Source = Callable[[], Mapping[str, Any]]
"""What an instance says of itself: `name`, `id`, `version` (semantic), and optionally `description`, `metadata`
(strings) and `endpoints`, each with `name` and `subject`, optionally `queue_group`, `metadata`, `num_requests`,
`num_errors`, `last_error` and `processing_time` in nanoseconds."""


class MicroService:
    """The subscriptions behind one instance's answers."""

    def __init__(self, subscriptions: list[Subscription]) -> None:
        self._subscriptions = subscriptions

    async def unsubscribe(self) -> None:
        """Answer no longer."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.unsubscribe()


async def serve_micro(core: Core, info_source: Source, *, clock: Clock = SYSTEM) -> MicroService:
    """Answer PING, INFO and STATS by what `info_source` says then; name and id must not change."""
    told = info_source()
    name, instance = told["name"], told["id"]
    started = rfc3339(clock.now())
    subscriptions: list[Subscription] = []

    async def answer(verb: str, say: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        def reply(message: Message) -> None:
            if message.reply:
                core.publish(message.reply, msgspec.json.encode(say(info_source())))

        start = f"{PREFIX}.{verb}"
        subjects = (start, f"{start}.{name}", f"{start}.{name}.{instance}")
        subscriptions.extend([await core.subscribe(subject, reply) for subject in subjects])

    await answer("PING", ping)
    await answer("INFO", info)
    await answer("STATS", lambda told: stats(told, started))
    return MicroService(subscriptions)


def ping(told: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to `$SRV.PING`."""
    return _identity(told, "ping_response")


def info(told: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to `$SRV.INFO`."""
    return {
        **_identity(told, "info_response"),
        "description": told.get("description", ""),
        "endpoints": [
            {**_place(one), "metadata": one.get("metadata", {})}
            for one in told.get("endpoints", ())
        ],
    }


def stats(told: Mapping[str, Any], started: str) -> dict[str, Any]:
    """The answer to `$SRV.STATS`; `started` as RFC 3339."""
    return {
        **_identity(told, "stats_response"),
        "started": started,
        "endpoints": [{**_place(one), **_counts(one)} for one in told.get("endpoints", ())],
    }


def _identity(told: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {
        "type": f"io.nats.micro.v1.{kind}",
        "name": told["name"],
        "id": told["id"],
        "version": told["version"],
        "metadata": told.get("metadata", {}),
    }


def _place(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": endpoint["name"],
        "subject": endpoint["subject"],
        "queue_group": endpoint.get("queue_group", ""),
    }


def _counts(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    requests = int(endpoint.get("num_requests", 0))
    spent = int(endpoint.get("processing_time", 0))
    return {
        "num_requests": requests,
        "num_errors": endpoint.get("num_errors", 0),
        "last_error": endpoint.get("last_error", ""),
        "processing_time": spent,
        "average_processing_time": spent // requests if requests else 0,
    }
