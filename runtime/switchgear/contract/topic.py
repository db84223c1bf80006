"""Topics: named messages of one type, to every subscriber or to one of a group."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Generic, NamedTuple, TypeVar

from switchgear.contract import subjects
from switchgear.errors import UsageError

T = TypeVar("T")


class Topic(Generic[T]):
    """A topic and the type of its values.

    A durable topic's message is kept until every capability that it triggers has had it; of another one only who
    listens now hears. `ttl`: a message that is older is dropped instead of handled. Raises UsageError for a name
    that is no token.
    """

    __slots__ = ("durable", "name", "ttl", "type")

    def __init__(
        self, name: str, type: type[T], *, durable: bool = True, ttl: timedelta | None = None
    ) -> None:
        if not subjects.is_token(name):
            raise UsageError(
                f"{name!r} cannot name a topic",
                why="it becomes part of a subject",
                fix="use 1 to 64 letters, digits, - and _",
            )
        if ttl is not None and ttl <= timedelta():
            raise UsageError(f"the topic {name} has a ttl of {ttl}, which is over at once")
        self.name = name
        self.type = type
        self.durable = durable
        self.ttl = ttl

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {getattr(self.type, '__name__', self.type)})"


class Message(NamedTuple):
    """What a listener hears beside the value."""

    id: str
    sender: str
    """The principal that published it."""
    time: datetime
