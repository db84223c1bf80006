"""Who is there: a pure table of announcements, and what it says about a capability."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from switchgear.contract import codec, limits, subjects
from switchgear.contract.announcement import Announcement, Offer, Running
from switchgear.errors import ProtocolError
from switchgear.lifecycle.routing import Pool

SETTLING = timedelta(seconds=10)
"""How long nobody counts as absent after the reader or the broker came back."""


@dataclass(slots=True)
class Instance:
    """One live process of an agent."""

    announcement: Announcement
    heard: datetime
    """Broker's store time of its newest announcement."""


@dataclass(slots=True)
class Table:
    """All live instances by announcement subject. Changes only through its methods, each told the time."""

    instances: dict[str, Instance] = field(default_factory=dict[str, Instance])
    departed: dict[str, tuple[str, datetime]] = field(
        default_factory=dict[str, tuple[str, datetime]]
    )
    """Capability -> who offered it last, and until when."""
    settling_until: datetime | None = None
    version: int = 0
    """Grows with every change that routing could see."""
    _leaving: set[str] = field(default_factory=set[str])
    _lost: set[str] = field(default_factory=set[str])
    """Subjects of instances whose connection ended, and that have not announced themselves since (rule 7)."""
    _pools: dict[str, list[Pool]] = field(default_factory=dict[str, list[Pool]])

    def settle(self, now: datetime) -> None:
        """The reader or the broker has just come back: announcements may have expired meanwhile."""
        self.settling_until = now + SETTLING

    def is_settling(self, now: datetime) -> datetime | None:
        """Until when nobody counts as absent; None once that is over."""
        until = self.settling_until
        return until if until is not None and now < until else None

    def put(self, subject: str, data: bytes, heard: datetime) -> set[str]:
        """An announcement. Returns capabilities for which a new pool accepts work. Raises ProtocolError."""
        agent, instance = subjects.parse_announce(subject)
        announcement = codec.decode(data, Announcement, limit=limits.MAX_ANNOUNCEMENT)
        if (announcement.agent, announcement.instance) != (agent, instance):
            raise ProtocolError(
                f"{announcement.agent}/{announcement.instance} announces itself as {subject}",
                code="SG1108",
            )
        before = self._accepting()
        self.instances[subject] = Instance(announcement, heard)
        self._leaving.discard(subject)
        self._lost.discard(subject)
        self._changed()
        return {capability for capability, _ in self._accepting() - before}

    def remove(self, subject: str, now: datetime) -> None:
        """An instance left, or its announcement expired; while settling one that did not drain stays a little."""
        if subject not in self.instances:
            return
        if self.is_settling(now) and not self.instances[subject].announcement.draining:
            self._leaving.add(subject)
            return
        gone = self.instances.pop(subject)
        self._lost.discard(subject)
        for offer in gone.announcement.offers:
            name = f"{gone.announcement.agent} {offer.version} ({gone.announcement.instance})"
            self.departed[offer.name] = (name, now)
        self._changed()

    def sweep(self, now: datetime) -> None:
        """Drop who has not been heard for the announcements' TTL, whatever TTL it asked the broker for."""
        if self.is_settling(now):
            return
        stale = {
            subject
            for subject, instance in self.instances.items()
            if now - instance.heard > limits.ANNOUNCE_TTL
        }
        for subject in stale | self._leaving:
            self.remove(subject, now)
        self._leaving.clear()

    def heard(self, instance: str) -> datetime | None:
        """When this instance announced itself last; None for one that is not there."""
        subject = self._subject(instance)
        return None if subject is None else self.instances[subject].heard

    def lost(self, instance: str) -> tuple[Running, ...]:
        """Its connection ended: it counts for nothing until it announces itself again. Returns what it ran."""
        subject = self._subject(instance)
        if subject is None:
            return ()
        if subject not in self._lost:
            self._lost.add(subject)
            self._changed()
        return self.instances[subject].announcement.running

    def pools(self, capability: str) -> list[Pool]:
        """The pools behind a capability, in a fixed order."""
        if not self._pools:
            self._pools = self._build()
        return self._pools.get(capability, [])

    def capabilities(self) -> dict[str, list[Pool]]:
        """All pools by capability."""
        if not self._pools:
            self._pools = self._build()
        return self._pools

    def last_offered(self, capability: str) -> str:
        """Who offered the capability last and until when; empty where this process never saw it."""
        if capability not in self.departed:
            return ""
        name, until = self.departed[capability]
        return f"{name} until {until:%Y-%m-%d %H:%M:%S} UTC"

    def runner(self, task: str, now: datetime) -> str:
        """The live instance that announces that it runs the task; empty for none.

        A crashed one stays announced until its TTL ends, longer than the lease of what it ran: who
        is late with announcing counts as dead here, unless the broker was away itself.
        """
        patient = self.is_settling(now) is not None
        for subject, instance in self.instances.items():
            if subject in self._lost:
                continue
            runs = any(running.task == task for running in instance.announcement.running)
            if runs and (patient or now - instance.heard <= limits.ANNOUNCE_EVERY * 1.5):
                return instance.announcement.instance
        return ""

    def _subject(self, instance: str) -> str | None:
        """Where this instance announces itself; None for one that is not there."""
        ending = f".{instance}"
        return next((subject for subject in self.instances if subject.endswith(ending)), None)

    def _changed(self) -> None:
        self.version += 1
        self._pools = {}

    def _accepting(self) -> set[tuple[str, str]]:
        return {
            (offer.name, offer.pool)
            for subject, instance in self.instances.items()
            if not instance.announcement.draining and subject not in self._lost
            for offer in instance.announcement.offers
        }

    def _build(self) -> dict[str, list[Pool]]:
        groups: dict[tuple[str, str], list[tuple[Announcement, Offer]]] = {}
        for subject in sorted(self.instances.keys() - self._lost):
            announcement = self.instances[subject].announcement
            for offer in announcement.offers:
                groups.setdefault((offer.name, offer.pool), []).append((announcement, offer))
        built: dict[str, list[Pool]] = {}
        for (capability, _), members in sorted(groups.items()):
            built.setdefault(capability, []).append(_pool(members))
        return built


def _pool(members: list[tuple[Announcement, Offer]]) -> Pool:
    announcement, offer = members[0]
    accepting = [(who, what) for who, what in members if not who.draining]
    slots = sum(what.concurrency for _, what in accepting)
    busy = sum(who.busy.get(what.name, 0) for who, what in accepting)
    return Pool(
        offer=offer,
        agent=announcement.agent,
        labels=dict(announcement.labels),
        instances=len(accepting),
        draining=len(members) - len(accepting),
        slots=slots,
        free=max(slots - busy, 0),
    )
