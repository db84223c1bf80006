"""Faults at named keys: `mesh.faults`. A process dies, a body fails, a lease ends, exactly there.

They happen where the ledger shows them: `watched_ledger` stands between an instance and the broker, and sees each
recorded end before it is stored.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from switchgear.contract import codec, entries, subjects
from switchgear.errors import StepFailed, SwitchgearError, UsageError
from switchgear.testing.fakes import Runs

if TYPE_CHECKING:
    from collections.abc import Callable

What = Literal["before", "after", "lose"]

_NO_END = ("undo-registered", "undo-dropped", "undo-begun")
"""Checkpoints that record no end of what runs under their key."""


class Point(NamedTuple):
    """An end that is about to be recorded: where an instance may die."""

    capability: str
    key: str
    """Empty for the end of the task itself."""

    def __str__(self) -> str:
        return f"{self.capability}/{self.key}" if self.key else f"{self.capability} completed"


class _Planned(NamedTuple):
    what: What
    key: str

    def __str__(self) -> str:
        return (
            f"lose_lease(at={self.key!r})"
            if self.what == "lose"
            else f"crash({self.what}={self.key!r})"
        )


class _Failing:
    """An error for the bodies of one key."""

    def __init__(self, error: Exception, times: int | None) -> None:
        self.error = error
        self.left = times
        self.happened = False

    def take(self) -> bool:
        """Whether the next body fails."""
        if self.left == 0:
            return False
        if self.left is not None:
            self.left -= 1
        self.happened = True
        return True


class Faults:
    """What goes wrong in a test. A fault that never happens fails the test: its key may be misspelled."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        """Every end that was about to be recorded so far, in order."""
        self._planned: list[_Planned] = []
        self._at: tuple[int, What] | None = None
        self._failing: dict[str, _Failing] = {}
        self._runs: Counter[tuple[str, str]] = Counter()

    def crash(self, *, before: str | None = None, after: str | None = None) -> None:
        """Let the process die once that records the end of this key, just before or just after it is stored.

        `before`: what ran under the key has happened, nobody knows, and it runs again. `after`: it is recorded,
        and does not. A new process takes the old one's place at once. Raises UsageError unless one key is given.
        """
        if (before is None) == (after is None):
            raise UsageError("crash() takes one key", fix="give before=KEY or after=KEY")
        self._planned.append(
            _Planned("before", before) if before is not None else _Planned("after", str(after))
        )

    def fail(self, key: str, error: Exception, *, times: int | None = 1) -> None:
        """Let the bodies of this step, command or undo raise this error instead of running, so many times.

        None: always. A command raises StepFailed, as it does for whatever went wrong with it.
        """
        if times is not None and times < 1:
            raise UsageError(f"times is {times}", fix="give a number from 1 on, or None for always")
        self._failing[key] = _Failing(error, times)

    def lose_lease(self, *, at: str) -> None:
        """Let the process hang once, just before it records the end of this key, until another has the task.

        What it then records is refused: its handler is cancelled, and the other runs what was not recorded.
        """
        self._planned.append(_Planned("lose", at))

    def runs(self, task: str, key: str) -> int:
        """How often the body of this step, command or undo has begun."""
        return self._runs[task, key]

    def check(self) -> None:
        """Raises UsageError for a fault that has not happened."""
        waiting = [str(one) for one in self._planned]
        waiting += [f"fail({key!r})" for key, one in self._failing.items() if not one.happened]
        if waiting:
            ends = ", ".join(dict.fromkeys(repr(one.key) for one in self.points if one.key))
            raise UsageError(
                f"{waiting[0]} never happened",
                why=f"recorded were the ends of {ends}" if ends else "no end of a key was recorded",
                fix="give a key that the handler comes to",
            )

    # what the mesh is wired with

    def crash_at(self, number: int, what: Literal["before", "after"]) -> None:
        """As `crash`, at the end with this number, from 0; where it is not reached, nothing happens."""
        self._at = number, what

    def instrument(self, task: str, key: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        """What runs under a key: counted, and failing where that is asked for."""
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def run(*args: Any, **kwargs: Any) -> Any:
                self._begins(task, key, fn)
                return await fn(*args, **kwargs)

            return run

        @functools.wraps(fn)
        def plain(*args: Any, **kwargs: Any) -> Any:
            self._begins(task, key, fn)
            return fn(*args, **kwargs)

        return plain

    def _begins(self, task: str, key: str, fn: Callable[..., Any]) -> None:
        self._runs[task, key] += 1
        failing = self._failing.get(key)
        if failing is None or not failing.take():
            return
        error = failing.error
        if isinstance(fn, Runs) and not isinstance(error, SwitchgearError):
            raise StepFailed(f"step {key} failed: {error}", key=key) from error
        raise error

    def take(self, point: Point) -> What | None:
        """What happens to the process that is about to record this end."""
        self.points.append(point)
        if self._at is not None and self._at[0] == len(self.points) - 1:
            return self._at[1]
        for planned in self._planned:
            if point.key and planned.key == point.key:
                self._planned.remove(planned)
                return planned.what
        return None

    def give_back(self, point: Point, what: What) -> None:
        """It could not happen there: the end was refused, and is to be recorded again."""
        self.points.pop()
        if self._at is None:
            self._planned.insert(0, _Planned(what, point.key))


def point_of(subject: str, body: bytes) -> Point | None:
    """The end that this append records; None for any other entry."""
    parts = subjects.parse_task(subject)
    if parts.event == "completed":
        return Point(parts.capability, "")
    if parts.event != "checkpoint":
        return None
    entry = codec.decode_entry(parts, body)
    if not isinstance(entry, entries.Checkpoint) or entry.kind in _NO_END:
        return None
    return Point(parts.capability, entry.key)
