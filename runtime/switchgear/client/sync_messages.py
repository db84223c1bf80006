"""Messages and schedules for scripts: no `await`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, TypeVar, overload

from switchgear.client.feed import Feed
from switchgear.client.loop_thread import LoopThread
from switchgear.client.mesh import Mesh
from switchgear.client.schedules import Schedules
from switchgear.client.sync_rollouts import SyncRollouts
from switchgear.contract import queries
from switchgear.contract.capability import Capability
from switchgear.contract.cron import Cron, Missed, Overlap
from switchgear.contract.topic import Message, Topic
from switchgear.tasks import asking

T = TypeVar("T")


class SyncSchedules:
    """The schedules of this mesh's principal: `mesh.schedules`, without `await`."""

    def __init__(self, thread: LoopThread, schedules: Schedules) -> None:
        self._thread = thread
        self._schedules = schedules

    def put(
        self,
        name: str,
        capability: Capability[Any, Any] | str,
        input: Any,
        cron: Cron | str,
        *,
        timezone: str = "UTC",
        missed: Missed = "latest",
        overlap: Overlap = "skip",
        priority: str = "normal",
    ) -> queries.Schedule:
        """Start a task at each time that the cron expression names: see `Schedules.put`."""
        putting = self._schedules.put(
            name,
            capability,
            input,
            cron,
            timezone=timezone,
            missed=missed,
            overlap=overlap,
            priority=priority,
        )
        return self._thread.call(putting)

    def list(self, *, agent: str | None = None) -> list[queries.ScheduleRow]:
        """All of this principal by name, or those that an agent's declarations made."""
        return self._thread.call(self._schedules.list(agent=agent))

    def pause(self, name: str) -> queries.Schedule:
        """Start nothing until it is resumed. Raises NotFound."""
        return self._thread.call(self._schedules.pause(name))

    def resume(self, name: str) -> queries.Schedule:
        """Go on: see `Schedules.resume`. Raises NotFound."""
        return self._thread.call(self._schedules.resume(name))

    def remove(self, name: str) -> queries.Schedule:
        """Take it away; tasks that it started go on. Raises NotFound, Conflict."""
        return self._thread.call(self._schedules.remove(name))


class SyncMessaging:
    """A script's connection that talks."""

    def __init__(self, thread: LoopThread, mesh: Mesh) -> None:
        self._thread = thread
        self.mesh = mesh
        """The asynchronous mesh behind this one."""
        self.principal = mesh.principal

    @property
    def schedules(self) -> SyncSchedules:
        """Tasks that are submitted again and again, at the times of a cron expression."""
        return SyncSchedules(self._thread, self.mesh.schedules)

    @property
    def rollouts(self) -> SyncRollouts:
        """On which executor the steps of a capability run."""
        return SyncRollouts(self._thread, self.mesh.rollouts)

    @overload
    def publish(
        self,
        topic: Topic[T],
        value: T,
        *,
        key: str | None = None,
        to: str | None = None,
        priority: str = "normal",
        ttl: timedelta | None = None,
    ) -> str: ...

    @overload
    def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: str | None = None,
        to: str | None = None,
        priority: str = "normal",
        ttl: timedelta | None = None,
    ) -> str: ...

    def publish(self, topic: Topic[Any] | str, value: Any, **options: Any) -> str:
        """Publish a message on a topic; returns its id: see `Mesh.publish`."""
        return self._thread.call(self.mesh.publish(topic, value, **options))

    def request(
        self, agent: str, value: Any, answer: type[T], *, timeout: timedelta = asking.PATIENCE
    ) -> T:
        """Ask one of an agent's instances: see `Mesh.request`."""
        return self._thread.call(self.mesh.request(agent, value, answer, timeout=timeout))

    @overload
    def subscribe(self, topic: Topic[T]) -> Iterator[tuple[T, Message]]: ...

    @overload
    def subscribe(self, topic: str) -> Iterator[tuple[Any, Message]]: ...

    def subscribe(self, topic: Topic[Any] | str) -> Iterator[tuple[Any, Message]]:
        """Hear a topic live: `for value, message in mesh.subscribe(topic)`, from this call on, without end."""
        feed = self.mesh.subscribe(topic)
        self._thread.call(feed.__aenter__())
        return self._heard(feed)

    def _heard(self, feed: Feed[Any]) -> Iterator[tuple[Any, Message]]:
        source: AsyncIterator[tuple[Any, Message]] = aiter(feed)
        try:
            yield from self._thread.iterate(source)
        finally:
            self._thread.let_go(feed.__aexit__)
