"""All breakers and bulkheads of one instance, by the name of what they guard.

Above: executors and steps, which ask for a permit around each call; the worker, which asks what it may pull. Below:
the pure breaker (`resilience.circuit`). For one event loop: none of this may be called from another thread.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from contextvars import ContextVar
from datetime import datetime, timedelta
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, TypeVar

from switchgear.contract import limits
from switchgear.contract.announcement import BreakerState
from switchgear.contract.values import Failure
from switchgear.errors import BreakerOpen, StepFailed, SwitchgearError, UsageError
from switchgear.resilience.breaker import Breaker, breaker_fault
from switchgear.resilience.circuit import REFUSED, Change, Circuit, State
from switchgear.resilience.classes import RESOURCE, Verdict
from switchgear.resilience.classify import verdict
from switchgear.steps.dependency import Dependency

log = logging.getLogger(__name__)

T = TypeVar("T")
Judge = Callable[[BaseException], "Verdict | Failure"]
"""From what a call raised to what kind of failure that is."""
Action = Literal["reset", "open", "close"]

MAX_DEPENDENCIES = 256
"""Breakers that an instance keeps; beyond it, closed ones that were asked for longest ago are forgotten."""
MAX_SHOWN = 64
"""Breakers in one announcement."""
_MAX_WHY = 200
_ORDER: dict[State, int] = {"forced-open": 0, "open": 1, "half-open": 2, "disabled": 3, "closed": 4}

MET: ContextVar[set[str] | None] = ContextVar("switchgear_met", default=None)
"""Where the names are put of what the code that runs here asks for."""

UNGUARDED: ContextVar[bool] = ContextVar("switchgear_unguarded", default=False)
"""Set where calls are made whatever breakers say, and count for nothing: in undos."""


class Changed(NamedTuple):
    """The breaker of a dependency changed its state."""

    dependency: str
    old: State
    new: State
    at: float
    """Seconds of the monotonic clock."""
    why: str


class Permit(Protocol):
    """One call that may be made. The first verdict counts, the others are ignored."""

    def success(self) -> None:
        """The dependency did its part."""
        ...

    def failure(self, error_class: str, why: str = "", retry_after: float | None = None) -> None:
        """The call failed; the policy says whether a failure of this class speaks against the dependency.

        `retry_after`: seconds that the dependency asks to wait.
        """
        ...

    def release(self) -> None:
        """The call was not made, or says nothing of the dependency."""
        ...


def _nothing() -> None:
    """Nobody wants to know."""


def _told(error: BaseException) -> str:
    """What is told of an error to everybody: its text may hold an address with a secret, and is the task's alone."""
    name = type(error).__name__
    return f"{name} {error.code}" if isinstance(error, SwitchgearError) else name


class _Guarded:
    """A permit, and the block that it is for."""

    __slots__ = ("_began", "_judge", "_monotonic", "_one", "_permit", "_placed")

    def __init__(self, one: Dependency, monotonic: Callable[[], float], judge: Judge) -> None:
        self._one = one
        self._monotonic = monotonic
        self._judge = judge
        self._permit = REFUSED
        self._placed = False
        self._began = 0.0

    def success(self) -> None:
        permit, self._permit = self._permit, REFUSED
        if permit:
            now = self._monotonic()
            self._one.circuit.success(permit, now, now - self._began)

    def failure(self, error_class: str, why: str = "", retry_after: float | None = None) -> None:
        permit, self._permit = self._permit, REFUSED
        if permit:
            now = self._monotonic()
            took, why = now - self._began, why[:_MAX_WHY]
            if self._one.circuit.failure(permit, now, took, error_class, why, retry_after):
                self._one.probe_free()

    def release(self) -> None:
        permit, self._permit = self._permit, REFUSED
        if permit and self._one.circuit.release(permit):
            self._one.probe_free()

    async def __aenter__(self) -> Permit:
        one = self._one
        if UNGUARDED.get():
            return self
        met = MET.get()
        if met is not None:
            met.add(one.name)
        one.asked = now = self._monotonic()
        turn = one.enter(now)
        if turn is not None:
            await turn
            now = self._monotonic()
        permit = one.circuit.acquire(now)
        if permit == REFUSED:
            one.leave()
            raise one.refused(now)
        self._permit, self._began, self._placed = permit, now, True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._placed:
            self._placed = False
            self._one.leave()
        if not self._permit:
            return
        if error is None:
            self.success()
        elif not isinstance(error, Exception) or isinstance(error, BreakerOpen):
            self.release()  # cancelled, or refused by the breaker of something else
        else:
            found = self._judge(error)
            self.failure(found.error_class, _told(error), found.retry_after)


class Guards:
    """What one instance guards, and what it knows of it. Breakers of other instances are others."""

    def __init__(
        self,
        policies: Mapping[str, Breaker],
        *,
        monotonic: Callable[[], float],
        dice: Callable[[], float],
        on_change: Callable[[Changed], None] | None = None,
        on_probe_free: Callable[[], None] = _nothing,
        judge: Judge = verdict,
    ) -> None:
        """`policies` by dependency; `registry:*` stands for all of that kind, `*` for all that have none of their own.

        The host's resources have theirs by `resource:*` or by name only.

        `monotonic`: seconds of a clock that only runs forward; `dice`: numbers in [0, 1). `on_change` is told each
        change of state, `on_probe_free` that a half-open one lets one more probe through; both must return at once.
        `judge` classifies what calls raise. Raises UsageError for a policy that cannot be used.
        """
        for name, policy in policies.items():
            fault = breaker_fault(policy)
            if fault:
                raise UsageError(f"the breaker of {name} cannot be used: {fault}")
        self._policies = dict(policies)
        self._monotonic = monotonic
        self._dice = dice
        self._on_change = on_change
        self._on_probe_free = on_probe_free
        self._judge = judge
        self._all: dict[str, Dependency] = {}
        for name in policies:
            if not name.endswith("*"):
                self._of(name)

    def guard(
        self, dependency: str, judge: Judge | None = None
    ) -> AbstractAsyncContextManager[Permit]:
        """One call to a dependency: `async with guards.guard("llm") as permit:`.

        Waits for a place where the policy limits how many calls go on. Raises BreakerOpen. On leaving without a
        verdict, no exception is a success, and an exception a failure of the class that `judge` finds; a cancel
        counts for nothing.
        """
        return _Guarded(self._of(dependency), self._monotonic, judge or self._judge)

    async def around(self, dependencies: Collection[str], work: Callable[[], Awaitable[T]]) -> T:
        """One call that needs all of these. Raises BreakerOpen for the first that refuses it.

        A failure counts against the dependency that it names. A StepFailed that names none is the work's own, and
        counts for nothing unless the dependencies answered with it; any other error that names none counts against
        the first that is none of the host's resources: those are blamed by their names only.
        """
        names = list(dict.fromkeys(dependencies))
        async with AsyncExitStack() as entered:
            permits = [await entered.enter_async_context(self.guard(one)) for one in names]
            try:
                return await work()
            except BreakerOpen:
                raise
            except Exception as error:
                found = self._judge(error)
                own = isinstance(error, StepFailed) or found.dependency
                others = (name for name in names if not name.startswith(RESOURCE))
                blamed = found.dependency if own else next(others, "")
                for name, permit in zip(names, permits, strict=True):
                    policy = self._of(name).policy
                    if name == blamed or found.error_class in policy.answers:
                        permit.failure(found.error_class, _told(error), found.retry_after)
                    else:
                        permit.release()
                raise

    @property
    def troubled(self) -> bool:
        """Whether any breaker may refuse a call."""
        return any(one.circuit.state not in ("closed", "disabled") for one in self._all.values())

    def open_for(self, dependencies: Collection[str]) -> timedelta | None:
        """How long at least one of these refuses calls, as far as is known; None: work for all may be pulled."""
        now, longest = self._monotonic(), None
        for name in dependencies:
            one = self._all.get(name)
            wait = None if one is None else one.wait(now)
            if wait is not None and (longest is None or wait > longest):
                longest = wait
        return None if longest is None else timedelta(seconds=longest)

    def due(self) -> timedelta | None:
        """When time alone may let through what is refused now; until then only an answer or an order does."""
        now = self._monotonic()
        waits = (one.circuit.due(now) for one in self._all.values())
        soonest = min((wait for wait in waits if wait is not None), default=None)
        return None if soonest is None else timedelta(seconds=soonest)

    def room(self, dependencies: Collection[str]) -> int | None:
        """How many calls that need all of these would be let through now: probes; None: any number."""
        now, least = self._monotonic(), None
        for name in dependencies:
            one = self._all.get(name)
            room = None if one is None else one.circuit.room(now)
            if room is not None and (least is None or room < least):
                least = room
        return least

    def command(self, dependency: str, action: Action, by: str, why: str) -> State:
        """Do what a person orders: hold it open, let all through (`close`), or neither any more (`reset`)."""
        circuit, now = self._of(dependency).circuit, self._monotonic()
        if len(why) > _MAX_WHY:
            why = f"{why[: _MAX_WHY - 1]}…"  # it is announced; the order's record has all of it
        if action == "open":
            circuit.force_open(now, by, why)
        elif action == "close":
            circuit.disable(now, by, why)
        else:
            circuit.reset(now, by, why)
        return circuit.state

    def snapshot(self, now: datetime) -> tuple[BreakerState, ...]:
        """How they stand, for announcements; `now`: the time of day."""
        monotonic = self._monotonic()
        shown = sorted(self._all.values(), key=lambda one: (_ORDER[one.circuit.state], -one.asked))[
            :MAX_SHOWN
        ]
        return tuple(_shown(one, now, monotonic) for one in shown)

    def _of(self, name: str) -> Dependency:
        one = self._all.get(name)
        if one is None:
            name = name[: limits.MAX_LABEL]
            one = self._all.get(name) or self._made(name)
        return one

    def _made(self, name: str) -> Dependency:
        if len(self._all) >= MAX_DEPENDENCIES:
            self._forget()
        policy, now = self._policy(name), self._monotonic()

        def told(change: Change) -> None:
            self._changed(one, change)

        circuit = Circuit(policy, now, self._dice, told)
        one = Dependency(name, policy, circuit, self._on_probe_free)
        self._all[name] = one
        return one

    def _policy(self, name: str) -> Breaker:
        keys = (name, f"{name.partition(':')[0]}:*", "*")
        # the host's resources are asked by steps that take any time: what was meant for services is not for them
        for key in keys[:2] if name.startswith(RESOURCE) else keys:
            if key in self._policies:
                return self._policies[key]
        return Breaker()

    def _forget(self) -> None:
        """Make room for one more: a name may come from a task's input, and there is no end to those."""
        spare = [one for one in self._all.values() if one.name not in self._policies]
        idle = [one for one in spare if one.idle]
        if idle or spare:
            del self._all[min(idle or spare, key=lambda one: one.asked).name]

    def _changed(self, one: Dependency, change: Change) -> None:
        log.warning("breaker.%s %s: %s", change.new, one.name, change.why)
        one.changed(change.at)
        if self._on_change is not None:
            self._on_change(Changed(one.name, *change))


def _shown(one: Dependency, now: datetime, monotonic: float) -> BreakerState:
    seen = one.circuit.seen(monotonic)

    def at(moment: float) -> datetime:
        return now + timedelta(seconds=moment - monotonic)

    forced = seen.forced
    return BreakerState(
        dependency=one.name,
        state=seen.state,
        since=at(seen.since),
        until=None if seen.until is None else at(seen.until),
        failure_rate=round(seen.totals.failure_rate, 3),
        slow_rate=round(seen.totals.slow_rate, 3),
        calls=seen.totals.calls,
        opened=seen.opened,
        why=seen.why,
        forced_by="" if forced is None else forced.by,
        forced_at=None if forced is None else at(forced.at),
        forced_why="" if forced is None else forced.why,
        busy=one.bulkhead.busy,
        waiting=one.bulkhead.waiting,
    )
