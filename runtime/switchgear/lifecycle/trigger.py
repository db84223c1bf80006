"""What triggers come to: whose declaration holds, which schedules it makes, which tasks a message starts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from packaging.version import Version

from switchgear import ids
from switchgear.contract.announcement import Announcement, CronTrigger
from switchgear.contract.queries import Schedule, TopicMessage
from switchgear.contract.trigger import Trigger
from switchgear.lifecycle import routing

_MAX_CAPABILITY = 50
"""Characters of the capability in a schedule's name, which is one token of 64."""
_MARK = 10


class Started(NamedTuple):
    """A task that a message starts."""

    capability: str
    owner: str
    task: str


def announced(instances: Iterable[Announcement]) -> dict[str, Trigger]:
    """By capability, what the newest announced version declares: of one version the youngest instance."""
    newest: dict[str, Trigger] = {}
    for one in instances:
        for offer in one.offers:
            found = Trigger(
                capability=offer.name,
                agent=one.agent,
                version=offer.version,
                started=one.started,
                crons=offer.crons,
                topics=offer.topics,
            )
            known = newest.get(offer.name)
            if known is None or _rank(found) > _rank(known):
                newest[offer.name] = found
    return newest


def holds(kept: Trigger | None, live: Trigger | None, *, patient: bool) -> Trigger | None:
    """The declaration that holds: what is announced now, else what was kept.

    An older version than the kept one counts only once it has been the newest for long (not `patient`): the newer
    one's announcement may be on its way, or have expired while the broker was away.
    """
    if kept is None or live is None:
        return live if kept is None else kept
    if _rank(live) < _rank(kept) and patient:
        return kept
    return live


def is_older(kept: Trigger | None, live: Trigger | None) -> bool:
    """Whether the newest announced declaration is older than the kept one."""
    return kept is not None and live is not None and _rank(live) < _rank(kept)


def to_keep(kept: Trigger | None, held: Trigger | None) -> bool:
    """Whether the declaration that holds is to be stored; one that never declared anything is not."""
    if held is None or (kept is None and held.is_empty):
        return False
    return kept is None or _content(kept) != _content(held)


def schedules(trigger: Trigger, now: datetime) -> list[Schedule]:
    """The schedules that the crons of a declaration are, owned by its agent.

    Named by capability, expression and time zone, so that a changed input or policy keeps what was handled.
    """
    found: dict[str, Schedule] = {}
    for cron in trigger.crons:
        name = _name(trigger.capability, cron, 0)
        number = 0
        while name in found:
            number += 1
            name = _name(trigger.capability, cron, number)
        found[name] = Schedule(
            name=name,
            owner=trigger.agent,
            capability=trigger.capability,
            cron=cron,
            created=now,
            agent=trigger.agent,
            version=trigger.version,
        )
    return list(found.values())


def started(
    topic: str, to: str, message: TopicMessage, triggers: Iterable[Trigger], now: datetime
) -> list[Started]:
    """The tasks that a message starts: one for each capability that listens to its topic; none once it expired."""
    if message.expires is not None and now >= message.expires:
        return []
    return [
        Started(one.capability, one.agent, ids.derived_id("topic", one.capability, message.id))
        for one in triggers
        if to in ("", one.agent) and any(each.topic == topic for each in one.topics)
    ]


def _rank(trigger: Trigger) -> tuple[Version, datetime]:
    return routing.version(trigger.version), trigger.started


def _content(trigger: Trigger) -> tuple[object, ...]:
    return trigger.agent, trigger.version, trigger.crons, trigger.topics


def _name(capability: str, cron: CronTrigger, number: int) -> str:
    parts = "\x1f".join((capability, cron.expression, cron.timezone, str(number)))
    return f"{capability[:_MAX_CAPABILITY]}-{ids.short_digest(parts.encode(), _MARK)}"
