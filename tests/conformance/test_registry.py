"""The registry's stream: announcements, their ends, and watchers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from switchgear.bus.port import Announced, Bus
from switchgear.errors import UsageError
from tests.conformance.support import MakeBus, Names, Received

LONG = timedelta(seconds=30)
"""An announcement that outlives the test."""
SHORT = timedelta(seconds=1)
"""The shortest time to live that a server takes."""


class Watcher(Received[Announced]):
    """What a watcher hears of this test's agent."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._prefix = f"sg.announce.{names.capability}."

    def __call__(self, item: Announced) -> None:
        if item.subject.startswith(self._prefix):
            super().__call__(item)

    def heard(self) -> list[tuple[str, bytes | None]]:
        """Instance and announcement (None: its end), in order."""
        return [(item.subject.rpartition(".")[2], item.data) for item in self.items]

    def there(self) -> dict[str, bytes]:
        """The instances that are left after all that was heard."""
        state = dict(self.heard())
        return {instance: data for instance, data in state.items() if data is not None}


def subject(names: Names, instance: str) -> str:
    """Where an instance of this test's agent announces itself."""
    return f"sg.announce.{names.capability}.{instance}"


async def test_watch_has_received_what_is_there_when_it_returns(bus: Bus, names: Names) -> None:
    """Fifty announcements are all there, without any further waiting."""
    for n in range(50):
        await bus.announcements.put(subject(names, f"i{n}"), b"%d" % n, ttl=LONG)
    watcher = Watcher(names)
    watching = await bus.announcements.watch(watcher)
    assert [(f"i{n}", b"%d" % n) for n in range(50)] == watcher.heard()
    await watching.end()


async def test_watch_of_an_empty_registry_returns(bus: Bus, names: Names) -> None:
    """Nothing there is nothing to wait for."""
    watcher = Watcher(names)
    watching = await bus.announcements.watch(watcher)
    assert watcher.items == []
    await watching.end()


async def test_only_the_newest_announcement_of_an_instance_is_there(bus: Bus, names: Names) -> None:
    """A later one replaces the earlier one."""
    await bus.announcements.put(subject(names, "i1"), b"old", ttl=LONG)
    await bus.announcements.put(subject(names, "i1"), b"new", ttl=LONG)
    watcher = Watcher(names)
    watching = await bus.announcements.watch(watcher)
    assert watcher.heard() == [("i1", b"new")]
    await watching.end()


async def test_changes_come_in_order_with_store_times(make_bus: MakeBus, names: Names) -> None:
    """Another connection's announcements come as they are put, sequences and times ascending."""
    one, two = await make_bus("a"), await make_bus("b")
    await one.announcements.put(subject(names, "i1"), b"1", ttl=LONG)
    watcher = Watcher(names)
    watching = await two.announcements.watch(watcher)
    for instance, data in (("i2", b"2"), ("i1", b"3"), ("i3", b"4")):
        await one.announcements.put(subject(names, instance), data, ttl=LONG)
    await watcher.reach(4)
    assert watcher.heard() == [("i1", b"1"), ("i2", b"2"), ("i1", b"3"), ("i3", b"4")]
    sequences = [item.sequence for item in watcher.items]
    times = [item.time_ns for item in watcher.items]
    assert sorted(set(sequences)) == sequences
    assert sorted(times) == times
    await watching.end()


async def test_removed_announcement_is_heard_as_an_end(bus: Bus, names: Names) -> None:
    """A watcher hears None; who watches later finds the instance no more."""
    await bus.announcements.put(subject(names, "i1"), b"1", ttl=LONG)
    await bus.announcements.put(subject(names, "i2"), b"2", ttl=LONG)
    watcher, later = Watcher(names), Watcher(names)
    watching = await bus.announcements.watch(watcher)
    await bus.announcements.remove(subject(names, "i1"))
    await watcher.reach(3)
    assert watcher.heard() == [("i1", b"1"), ("i2", b"2"), ("i1", None)]
    assert watcher.items[2].sequence > watcher.items[1].sequence
    await watching.end()
    watching = await bus.announcements.watch(later)
    assert later.there() == {"i2": b"2"}
    await watching.end()


async def test_announcement_ends_with_its_ttl(bus: Bus, names: Names) -> None:
    """One that is not renewed is heard as an end; who watches later finds the other one only."""
    watcher, later = Watcher(names), Watcher(names)
    watching = await bus.announcements.watch(watcher)
    await bus.announcements.put(subject(names, "i1"), b"1", ttl=2 * SHORT)
    await bus.announcements.put(subject(names, "i2"), b"2", ttl=LONG)
    await watcher.until(lambda items: any(item.data is None for item in items))
    assert watcher.heard() == [("i1", b"1"), ("i2", b"2"), ("i1", None)]
    await watching.end()
    watching = await bus.announcements.watch(later)
    assert later.there() == {"i2": b"2"}
    await watching.end()


async def test_renewed_announcement_outlives_its_first_ttl(bus: Bus, names: Names) -> None:
    """Of two with a short TTL the one that was put again with a long one stays."""
    watcher = Watcher(names)
    watching = await bus.announcements.watch(watcher)
    await bus.announcements.put(subject(names, "kept"), b"1", ttl=2 * SHORT)
    await bus.announcements.put(subject(names, "kept"), b"2", ttl=LONG)
    await bus.announcements.put(subject(names, "gone"), b"3", ttl=2 * SHORT)
    await watcher.until(lambda items: any(item.data is None for item in items))
    assert watcher.there() == {"kept": b"2"}
    await watching.end()


async def test_instance_that_left_can_come_back(bus: Bus, names: Names) -> None:
    """Put after removal is there again."""
    watcher = Watcher(names)
    watching = await bus.announcements.watch(watcher)
    await bus.announcements.put(subject(names, "i1"), b"1", ttl=LONG)
    await bus.announcements.remove(subject(names, "i1"))
    await bus.announcements.put(subject(names, "i1"), b"2", ttl=LONG)
    await watcher.until(lambda items: items[-1].data == b"2")
    assert watcher.there() == {"i1": b"2"}
    await watching.end()


async def test_announcement_without_data_is_an_error(bus: Bus, names: Names) -> None:
    """No bytes would mean its end."""
    with pytest.raises(UsageError):
        await bus.announcements.put(subject(names, "i1"), b"", ttl=LONG)


async def test_ended_watch_hears_nothing_more(bus: Bus, names: Names) -> None:
    """Of two watchers only the one that goes on hears the next announcement."""
    ended, goes_on = Watcher(names), Watcher(names)
    watching = await bus.announcements.watch(ended)
    other = await bus.announcements.watch(goes_on)
    await watching.end()
    await bus.announcements.put(subject(names, "i1"), b"1", ttl=LONG)
    await goes_on.reach(1)
    assert ended.items == []
    await other.end()
