"""Core messages of the memory broker: who listens where, and whom of a queue group one reaches."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from switchgear.testing.memory_stream import matches

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from switchgear.bus.port import Message
    from switchgear.testing.memory_link import Link


class Interest:
    """One subscription of one connection."""

    def __init__(
        self, link: Link, subject_filter: str, receive: Callable[[Message], None], queue: str
    ) -> None:
        self.link = link
        self.subject_filter = subject_filter
        self.queue = queue
        self.receive = receive


class Interests:
    """All subscriptions, in the order in which they were made."""

    def __init__(self, dice: Random) -> None:
        """`dice` choose among the members of a queue group."""
        self._dice = dice
        self._all: list[Interest] = []
        self._inboxes = count(1)

    def inbox(self) -> str:
        """A subject that nobody used before, for an answer."""
        return f"_INBOX.memory.{next(self._inboxes)}"

    def add(self, interest: Interest) -> None:
        """Begin to listen."""
        self._all.append(interest)

    def remove(self, interest: Interest) -> None:
        """Stop listening; what is on its way still arrives."""
        if interest in self._all:
            self._all.remove(interest)

    def drop(self, link: Link) -> None:
        """Forget a connection that has died."""
        self._all = [interest for interest in self._all if interest.link is not link]

    def send(self, message: Message) -> int:
        """Send to every listener and to one member of each queue group; returns how many get it."""
        hit = [each for each in self._all if matches(each.subject_filter, message.subject)]
        chosen = [each for each in hit if not each.queue]
        groups: dict[str, list[Interest]] = {}
        for each in hit:
            if each.queue:
                groups.setdefault(each.queue, []).append(each)
        chosen += [self._dice.choice(members) for members in groups.values()]
        for each in chosen:
            each.link.call(each.receive, message)
        return len(chosen)
