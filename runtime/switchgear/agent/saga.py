"""Undos: registered before the steps that they undo, dropped when all of those have stood."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, Self, get_type_hints

import msgspec

from switchgear.agent.digests import Ambient
from switchgear.agent.recording import Recording
from switchgear.contract import codec, entries
from switchgear.errors import NotRecordable
from switchgear.tasks import payload

P = ParamSpec("P")


class Call(msgspec.Struct, frozen=True):
    """An undo as it is recorded: what to call, and with what."""

    function: str
    """`module:qualname`."""
    args: tuple[msgspec.Raw, ...]
    """JSON of its arguments, without contexts: those are given when it runs."""


class Undos:
    """The undos of one task: those that are recorded as open, and what is still to be recorded of them."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.open: dict[str, entries.Checkpoint | Call] = {
            one.key: one for one in recording.records.open_undos
        }
        """What to run if the task fails or is cancelled, oldest first."""
        self._pending: dict[str, Call | None] = {}
        self._flushing = asyncio.Lock()

    @property
    def pending(self) -> bool:
        """Whether something is to be recorded before anything else begins."""
        return bool(self._pending)

    def register(self, key: str, call: Call) -> None:
        """Let it be run if the task fails from the next step on."""
        self._pending.pop(key, None)
        self._pending[key] = call

    def drop(self, key: str) -> None:
        """It is needed no longer."""
        self._pending.pop(key, None)
        if key in self.open:
            self._pending[key] = None

    async def flush(self) -> None:
        """Record what is pending, in order; each once, however many steps are about to begin."""
        async with self._flushing:
            while self._pending:
                key, call = next(iter(self._pending.items()))
                if call is None:
                    await self._recording.mark(key, "undo-dropped")
                    self.open.pop(key, None)
                elif key not in self.open:
                    stored = msgspec.Raw(codec.encode(call))
                    await self._recording.mark(key, "undo-registered", payload.Payload(stored))
                    self.open[key] = call
                if self._pending.get(key) is call:
                    del self._pending[key]

    async def settle(self) -> None:
        """Record what was dropped; what was never recorded need not be undone. Raises as an append."""
        self._pending = {key: call for key, call in self._pending.items() if call is None}
        await self.flush()


class Saga:
    """`async with ctx.saga() as saga`: what `undo` registers is run, last first, if the task fails for good.

    That is on an error that no retry follows, on cancel and at the deadline. Leaving the block normally drops the
    undos. An undo bears that its step never happened.
    """

    def __init__(self, recording: Recording, undos: Undos) -> None:
        self._recording = recording
        self._undos = undos
        self._keys: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            for key in self._keys:
                self._undos.drop(key)

    def undo(self, key: str, fn: Callable[..., Any], *args: Any) -> None:
        """Register an undo, before the step that it undoes: it is durable before that begins.

        `fn` is a function at module level; it is called with these arguments, and with the context for each
        parameter that is annotated as one. Raises NotRecordable for others, DuplicateKey.
        """
        self._recording.take(key)
        self._undos.register(key, recorded_call(key, fn, args))
        self._keys.append(key)


class Parameter(NamedTuple):
    """One that an undo function takes."""

    kind: Any
    ambient: bool
    """The runtime gives it."""


def recorded_call(key: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> Call:
    """The call as it is recorded. Raises NotRecordable for what a later process could not call."""
    module = getattr(fn, "__module__", None)
    name = getattr(fn, "__qualname__", "")
    if not module or "<" in name or _found(module, name) is not fn:
        raise NotRecordable(
            f"undo {key} is {name or fn!r}, which no other process can find",
            why="an undo may run after this process has ended",
            fix="make it a function at module level, and give it what it needs as arguments",
        )
    given = [one for one in args if not isinstance(one, Ambient)]
    wanted = [one for one in parameters(fn, len(given)) if not one.ambient]
    if len(wanted) != len(given):
        raise NotRecordable(
            f"undo {key} takes {len(wanted)} arguments, and is given {len(given)}",
            fix=f"call undo(key, {name}, …) with what it takes",
        )
    return Call(f"{module}:{name}", tuple(map(_recordable, [key] * len(given), given, wanted)))


def loaded(call: Call, context: Any) -> tuple[Callable[..., Any], list[Any]]:
    """The function and its arguments. Raises NotRecordable where they cannot be had in this process."""
    module, _, name = call.function.partition(":")
    fn = _found(module, name)
    if fn is None:
        raise NotRecordable(
            f"{call.function} cannot be imported",
            why="this version of the agent has no such function",
            fix="keep undo functions for as long as tasks may need them",
        )
    args = iter(call.args)
    values: list[Any] = []
    for one in parameters(fn, len(call.args)):
        if one.ambient:
            values.append(context)
            continue
        try:
            values.append(codec.decoder(one.kind).decode(next(args, b"null")))
        except msgspec.MsgspecError as error:
            raise NotRecordable(f"an argument of {call.function} does not fit: {error}") from error
    return fn, values


def parameters(fn: Callable[..., Any], count: int) -> list[Parameter]:
    """What the function takes by position, where it is given `count` arguments of the caller's."""
    try:
        hints = get_type_hints(fn, include_extras=True)
    except (NameError, TypeError) as error:
        raise NotRecordable(
            f"the annotations of {fn.__qualname__} cannot be read", why=str(error)
        ) from error
    found: list[Parameter] = []
    for one in inspect.signature(fn).parameters.values():
        kind = hints.get(one.name, Any)
        ambient = inspect.isclass(kind) and issubclass(kind, Ambient)
        given = sum(not other.ambient for other in found)
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            found.extend([Parameter(kind, ambient=False)] * (count - given))
        elif one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD):
            optional = one.default is not inspect.Parameter.empty
            if ambient or given < count or not optional:
                found.append(Parameter(kind, ambient))
    return found


def _recordable(key: str, value: Any, parameter: Parameter) -> msgspec.Raw:
    try:
        data = codec.encode(value)
        codec.decoder(parameter.kind).decode(data)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise NotRecordable(f"an argument of undo {key} cannot be recorded: {error}") from error
    return msgspec.Raw(data)


def _found(module: str, name: str) -> Callable[..., Any] | None:
    """What is importable under this name; None for nothing."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if callable(found) else None
