"""What an agent's author writes: an agent, its capabilities, resources and steps."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, get_type_hints, overload

import msgspec

from switchgear.agent.context import Context
from switchgear.agent.listener import Listener, Responder, listener, responder
from switchgear.agent.resource import Resource
from switchgear.contract import codec, limits, subjects
from switchgear.contract.capability import AnyCapability, Capability
from switchgear.contract.cron import Cron
from switchgear.contract.topic import Message, Topic
from switchgear.contract.values import Retry, retry_fault
from switchgear.errors import UsageError
from switchgear.resilience.breaker import Breaker, breaker_fault
from switchgear.resilience.classify import Own

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

Handler = Callable[[In, Context], Awaitable[Out]]
Trigger = Topic[Any] | Cron
_VERSION = re.compile(r"\d+\.\d+\.\d+([.+-][0-9A-Za-z.+-]+)?")


class Declared(Capability[In, Out]):
    """A capability with its handler: the value that the decorator returns, and that callers can use."""

    __slots__ = (
        "calls",
        "cleanup",
        "concurrency",
        "description",
        "handler",
        "on",
        "retry",
        "stall_timeout",
        "timeout",
    )

    def __init__(self, name: str, input: type[In], output: type[Out]) -> None:
        super().__init__(name, input, output)
        self.handler: Handler[In, Out]
        self.description = ""
        self.timeout: timedelta | None = None
        self.stall_timeout: timedelta | None = None
        self.retry = Retry()
        self.concurrency = 4
        self.calls: frozenset[str] = frozenset()
        self.cleanup = limits.CLEANUP
        self.on: tuple[Trigger, ...] = ()


class Agent:
    """A service that offers capabilities. Declare them on it, then `run()` it, or `switchgear agent run`.

    `name` is one token; `version` is `major.minor.patch`; `labels` are what submissions may ask for.
    Raises UsageError for names that cannot be used.
    """

    def __init__(self, name: str, *, version: str, labels: Mapping[str, str] | None = None) -> None:
        if not subjects.is_token(name):
            raise UsageError(
                f"{name!r} cannot name an agent",
                why="it becomes part of a subject",
                fix="use 1 to 64 letters, digits, - and _",
            )
        if not _VERSION.fullmatch(version):
            raise UsageError(f"{version!r} is not a version", fix="write it like 1.0.0")
        self.name = name
        self.version = version
        self.labels = _labels(labels or {})
        self.capabilities: dict[str, Declared[Any, Any]] = {}
        self.resources: list[Resource[Any]] = []
        self.listeners: list[Listener[Any]] = []
        self.responder: Responder[Any, Any] | None = None
        self.classifiers: list[Own] = []
        self.breakers: dict[str, Breaker] = {}

    @overload
    def capability(
        self,
        name: str,
        *,
        on: Iterable[Trigger] = (),
        calls: Iterable[AnyCapability | str] = (),
        timeout: timedelta | None = ...,
        stall_timeout: timedelta | None = None,
        retry: Retry = ...,
        concurrency: int = 4,
        cleanup: timedelta = limits.CLEANUP,
    ) -> Callable[[Handler[In, Out]], Declared[In, Out]]: ...

    @overload
    def capability(
        self,
        name: Capability[In, Out],
        *,
        on: Iterable[Trigger] = (),
        calls: Iterable[AnyCapability | str] = (),
        timeout: timedelta | None = ...,
        stall_timeout: timedelta | None = None,
        retry: Retry = ...,
        concurrency: int = 4,
        cleanup: timedelta = limits.CLEANUP,
    ) -> Callable[[Handler[In, Out]], Declared[In, Out]]: ...

    def capability(
        self,
        name: str | Capability[Any, Any],
        *,
        on: Iterable[Trigger] = (),
        calls: Iterable[AnyCapability | str] = (),
        timeout: timedelta | None = timedelta(minutes=10),
        stall_timeout: timedelta | None = None,
        retry: Retry = Retry(),  # noqa: B008  # frozen
        concurrency: int = 4,
        cleanup: timedelta = limits.CLEANUP,
    ) -> Callable[[Handler[Any, Any]], Declared[Any, Any]]:
        """Offer a capability: on `async def handler(input: In, ctx: Context) -> Out`.

        `timeout` bounds one attempt, None does not. `stall_timeout`: without a step's end or a progress report
        for this long, and without a call that waits, the handler is stopped. `on`: topics and crons that start
        tasks. `calls` names what the handler may call. `concurrency` is how many tasks one instance runs at a
        time. `cleanup`: the time to leave and to undo after a cancel or the deadline. Raises UsageError for a
        handler or option of another kind.
        """

        def declare(handler: Handler[Any, Any]) -> Declared[Any, Any]:
            declared = _declared(name, handler)
            if declared.name in self.capabilities:
                raise UsageError(f"{self.name} offers {declared.name} twice")
            declared.timeout = _time("timeout", timeout, declared.name)
            declared.stall_timeout = _time("stall_timeout", stall_timeout, declared.name)
            declared.retry = _checked(retry)
            declared.calls = frozenset(one if isinstance(one, str) else one.name for one in calls)
            if concurrency < 1:
                raise UsageError(f"{declared.name}: concurrency is {concurrency}, not 1 or more")
            declared.concurrency = concurrency
            if cleanup < timedelta():
                raise UsageError(f"{declared.name}: cleanup is {cleanup}, less than nothing")
            declared.cleanup = cleanup
            declared.on = _triggers(declared, on)
            self.capabilities[declared.name] = declared
            return declared

        return declare

    def resource(self, opened: Callable[[], AsyncIterator[T]]) -> Resource[T]:
        """A resource: on `async def open() -> AsyncIterator[T]` that yields once and then closes."""
        if not inspect.isasyncgenfunction(opened):
            raise UsageError(
                f"{getattr(opened, '__name__', opened)!r} is not an async generator function",
                fix="write `async def name() -> AsyncIterator[T]:` with one `yield`",
            )
        resource = Resource(opened)
        self.resources.append(resource)
        return resource

    def listen(
        self, topic: Topic[T]
    ) -> Callable[
        [Callable[[T, Message], Awaitable[None]]], Callable[[T, Message], Awaitable[None]]
    ]:
        """Hear a topic: on `async def heard(value: T, message: Message)`.

        Every running instance hears each message, at most once; what it raises is logged. Raises UsageError.
        """

        def declare(
            handler: Callable[[T, Message], Awaitable[None]],
        ) -> Callable[[T, Message], Awaitable[None]]:
            self.listeners.append(listener(topic, handler))
            return handler

        return declare

    def breaker(self, dependency: str, policy: Breaker) -> None:
        """When calls to a dependency stop: `agent.breaker("llm", Breaker(open_for=timedelta(seconds=10)))`.

        `dependency` is what steps name in `@step(breaker=...)`, or what executors call it, such as `dagger`;
        `registry:*` stands for all of that kind, `*` for all that have no policy of their own but the host's resources
        (`resource:*`). Raises UsageError for a policy that cannot be used, or a second one.
        """
        fault = breaker_fault(policy)
        if not 0 < len(dependency) <= limits.MAX_LABEL:
            fault = f"its name has {len(dependency)} characters, not 1 to {limits.MAX_LABEL}"
        elif dependency in self.breakers:
            fault = "it has a policy already"
        if fault:
            raise UsageError(f"the breaker of {dependency!r:.200} cannot be used: {fault}")
        self.breakers[dependency] = policy

    def respond(
        self, handler: Callable[[T, Message], Awaitable[R]]
    ) -> Callable[[T, Message], Awaitable[R]]:
        """Answer direct requests: on `async def answer(question: Q, message: Message) -> R`, once an agent.

        One of the running instances answers each. Raises UsageError.
        """
        if self.responder is not None:
            raise UsageError(
                f"{self.name} has two functions that answer requests",
                fix="answer in one, by the type of the question",
            )
        self.responder = responder(handler)
        return handler

    def classify(self, fn: Own) -> Own:
        """Name the class of this agent's own exceptions: on `def fn(error: BaseException) -> ErrorClass | None`.

        Asked before the tables, in the order of declaration, for steps and handlers; None leaves it to the next. The
        class decides about retries; whether the outcome is known stays as the tables say. Raises UsageError.
        """
        if not callable(fn) or inspect.iscoroutinefunction(fn):
            raise UsageError(
                f"{getattr(fn, '__name__', fn)!r} cannot classify exceptions",
                fix="write `def name(error: BaseException) -> ErrorClass | None`",
            )
        self.classifiers.append(fn)
        return fn

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C, with the settings of the environment and the saved context."""
        from switchgear.agent.process import run  # declaring an agent needs no bus

        run(self)


def _declared(name: str | Capability[Any, Any], handler: Handler[Any, Any]) -> Declared[Any, Any]:
    shown = getattr(handler, "__qualname__", repr(handler))
    if not inspect.iscoroutinefunction(handler):
        raise UsageError(f"handler {shown} is not an `async def` function")
    try:
        hints = get_type_hints(handler, include_extras=True)
    except NameError as error:
        raise UsageError(
            f"the annotations of {shown} cannot be read",
            why=str(error),
            fix="define its types at module level, outside `if TYPE_CHECKING`",
        ) from error
    given_name, *others = [*inspect.signature(handler).parameters, ""]
    if len(others) != len(("ctx", "")) or given_name not in hints or "return" not in hints:
        raise UsageError(
            f"handler {shown} does not have the shape of one",
            fix="write `async def handler(input: In, ctx: Context) -> Out`",
        )
    given, returned = hints[given_name], hints["return"]
    if isinstance(name, Capability):
        if (name.input, name.output) != (given, returned):
            raise UsageError(
                f"handler {shown} takes and returns other types than {name!r}",
                fix="annotate it with the capability's types",
            )
        name = name.name
    declared: Declared[Any, Any] = Declared(name, given, returned)
    declared.handler = handler
    declared.description = inspect.getdoc(handler) or ""
    return declared


def _triggers(declared: Declared[Any, Any], on: Iterable[Trigger]) -> tuple[Trigger, ...]:
    """What starts tasks of the capability, if each gives it an input of its type."""
    triggers = tuple(on)
    for one in triggers:
        if isinstance(one, Topic):
            if one.type != declared.input:
                raise UsageError(
                    f"{declared.name} takes {declared.input!r}, and {one!r} would give it others",
                    fix="annotate the handler's input with the topic's type",
                )
            continue
        try:
            codec.decoder(declared.input).decode(one.trigger().input)
        except msgspec.MsgspecError as error:
            raise UsageError(
                f"the input of {one!r} does not fit {declared.name}: {error}",
                fix="give `Cron(expression, input)` an input of the handler's type",
            ) from error
    return triggers


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not subjects.is_token(key) or len(value) > limits.MAX_LABEL:
            raise UsageError(f"label {key}={value!r} cannot be used")
    return dict(labels)


def _time(name: str, given: timedelta | None, capability: str) -> timedelta | None:
    if given is not None and given <= timedelta():
        raise UsageError(f"{capability}: {name} is {given}, which is over at once")
    return given


def _checked(retry: Retry) -> Retry:
    fault = retry_fault(retry)
    if fault:
        raise UsageError(f"the retry policy cannot be used: {fault}")
    return retry
