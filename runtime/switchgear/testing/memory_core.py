"""Core messages of the memory broker: who listens where, and whom of a queue group one reaches."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from switchgear.testing.memory_stream import matcher

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
        self.covers = matcher((subject_filter,))
        self.queue = queue
        self.receive = receive


class Interests:
    """All subscriptions, in the order in which they were made."""

    def __init__(self, dice: Random) -> None:
        """`dice` choose among the members of a queue group."""
        self._dice = dice
        self._of_head: dict[str, list[Interest]] = {}
        """By the first two tokens of their filters, which all subjects of the protocol spell out."""
        self._inboxes = count(1)

    def inbox(self) -> str:
        """A subject that nobody used before, for an answer."""
        return f"_INBOX.memory.{next(self._inboxes)}"

    def add(self, interest: Interest) -> None:
        """Begin to listen."""
        self._of_head.setdefault(_head(interest.subject_filter), []).append(interest)

    def remove(self, interest: Interest) -> None:
        """Stop listening; what is on its way still arrives."""
        found = self._of_head.get(_head(interest.subject_filter), [])
        if interest in found:
            found.remove(interest)

    def drop(self, link: Link) -> None:
        """Forget a connection that has died."""
        for head, found in self._of_head.items():
            self._of_head[head] = [interest for interest in found if interest.link is not link]

    def send(self, message: Message) -> int:
        """Send to every listener and to one member of each queue group; returns how many get it."""
        near = [*self._of_head.get(_head(message.subject), ()), *self._of_head.get("", ())]
        hit = [each for each in near if each.covers(message.subject)]
        if not hit:
            return 0
        chosen = [each for each in hit if not each.queue]
        groups: dict[str, list[Interest]] = {}
        for each in hit:
            if each.queue:
                groups.setdefault(each.queue, []).append(each)
        chosen += [self._dice.choice(members) for members in groups.values()]
        for each in chosen:
            each.link.call(each.receive, message)
        return len(chosen)


def _head(subject: str) -> str:
    """The first two tokens; empty where they are not spelled out."""
    end = subject.find(".", subject.find(".") + 1)
    head = subject if end < 0 else subject[:end]
    return "" if "*" in head or ">" in head else head
