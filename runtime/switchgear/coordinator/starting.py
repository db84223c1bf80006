"""Tasks that nobody submits: coordinators do, for schedules and triggers, as the owner of what they belong to."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from switchgear import ids
from switchgear.bus.port import Bus
from switchgear.clock import Clock
from switchgear.contract import codec
from switchgear.errors import Conflict
from switchgear.tasks import payload, submission

log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """A task to start. Its id follows from what asks for it, so that it is started once."""

    capability: str
    owner: str
    task: str
    input: Raw
    priority: str = "normal"
    depth: int = 0
    trace: str | None = None
    after: str | None = None
    then: str | None = None
    scheduled_for: datetime | None = None


async def start(bus: Bus, clock: Clock, asked: Asked) -> None:
    """Submit the task; returns when it stands, by this submission or an earlier one. Raises Unavailable."""
    opened = submission.opening(
        asked.capability,
        asked.owner,
        asked.task,
        await payload.store(bus.blobs, bytes(asked.input)),
        entry_id=ids.entry_id(),
        writer=bus.name,
        now=clock.now(),
        options=submission.Options(priority=asked.priority),
        lineage=submission.Lineage(depth=asked.depth, trace=asked.trace),
    )
    entry = replace(
        opened.entry, after=asked.after, then=asked.then, scheduled_for=asked.scheduled_for
    )
    opened = opened._replace(entry=entry, body=codec.encode(entry))
    answer = await bus.ledger.append(opened.subject, opened.body, scope=opened.scope, expect=0)
    try:
        await submission.confirm(bus, opened, answer)
    except Conflict:
        # Its input or priority was changed between two tries; or retention has deleted it since.
        log.info("coordinator.started-before %s", opened.scope)
