"""Random task programs: trees of what a handler may do, and what must come out whatever dies meanwhile.

A program is the input of the capabilities of `interpreter.py`. The same programs run in the simulation and on
real processes.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from msgspec import Struct

CAPABILITIES = ("red", "green", "blue")
"""All interpret programs; each is offered by an agent of its own."""
SIGNAL = "go"
ANSWER = 7
"""What the client's signals carry."""
MAX_ATTEMPTS = 4
"""Of every task of a program."""


class Step(Struct, frozen=True, tag=True):
    """A recorded step; its result is `value`."""

    key: str
    value: int
    seconds: float = 0
    fails: int = 0
    """How many of its executions fail before one succeeds."""


class Call(Struct, frozen=True, tag=True):
    """A child task; its result is the child's."""

    key: str
    capability: str
    program: Program


class Map(Struct, frozen=True, tag=True):
    """Several children at once."""

    key: str
    capability: str
    programs: tuple[Program, ...]
    limit: int = 100


class Gather(Struct, frozen=True, tag=True):
    """Several things at once."""

    ops: tuple[Op, ...]


class Sleep(Struct, frozen=True, tag=True):
    """Waits, beyond the hold time or not."""

    key: str
    seconds: float


class Signal(Struct, frozen=True, tag=True):
    """Waits for a signal that the client sends."""

    key: str


class Undo(Struct, frozen=True, tag=True):
    """Registers an undo for what follows."""

    key: str


class Tell(Struct, frozen=True, tag=True):
    """Reports progress and emits a chunk."""

    fraction: float


class Fail(Struct, frozen=True, tag=True):
    """Ends the handler with an error: the first `times` executions of it, or each one."""

    key: str
    kind: Literal["retryable", "permanent", "crash"]
    times: int = 1000


Op = Step | Call | Map | Gather | Sleep | Signal | Undo | Tell | Fail


class Program(Struct, frozen=True):
    """What one task does, in order; its result is the sum of what its parts give."""

    ops: tuple[Op, ...] = ()


def total(program: Program) -> int:
    """The result of the program where it completes."""
    return sum(_total(op) for op in program.ops)


def _total(op: Op) -> int:
    if isinstance(op, Step):
        return op.value
    if isinstance(op, Call):
        return total(op.program)
    if isinstance(op, Map):
        return sum(map(total, op.programs))
    if isinstance(op, Gather):
        return sum(map(_total, op.ops))
    return ANSWER if isinstance(op, Signal) else 0


def parts(program: Program) -> list[Op]:
    """All that the program and its children do, outermost first."""
    found: list[Op] = []
    todo: list[Op] = list(program.ops)
    while todo:
        op = todo.pop(0)
        found.append(op)
        if isinstance(op, Gather):
            todo.extend(op.ops)
        elif isinstance(op, Call):
            todo.extend(op.program.ops)
        elif isinstance(op, Map):
            todo.extend(one for child in op.programs for one in child.ops)
    return found


def own_parts(program: Program) -> list[Op]:
    """What the program's own task does, without its children's parts."""
    found: list[Op] = []
    for op in program.ops:
        found.extend(op.ops if isinstance(op, Gather) else (op,))
    return found


def ends(program: Program) -> frozenset[str]:
    """How its task may end, left alone: `completed`, `dead`, or both where it depends on the order of things."""
    own = own_parts(program)
    children = [child for op in own for child in _children(op)]
    inherited = [ends(child) for child in children]
    final = any(isinstance(op, Fail) and op.times > 99 for op in own)
    # Whose process dies before it has told of its only failure is run again, and does not fail.
    perhaps = any(isinstance(op, Fail) and op.kind == "permanent" for op in own)
    if final or frozenset({"dead"}) in inherited:
        return frozenset({"dead"})
    failures = sum(op.fails for op in own if isinstance(op, Step))
    failures += sum(op.times for op in own if isinstance(op, Fail) and op.kind == "retryable")
    if perhaps or failures >= MAX_ATTEMPTS or any("dead" in one for one in inherited):
        return frozenset({"completed", "dead"})
    return frozenset({"completed"})


def _children(op: Op) -> tuple[Program, ...]:
    if isinstance(op, Call):
        return (op.program,)
    return op.programs if isinstance(op, Map) else ()


class Maker:
    """Draws programs; `budget` bounds how many parts one has in all."""

    def __init__(
        self, random: Random, *, slow: float = 20.0, crashes: bool = True, steps: int = 5
    ) -> None:
        """`slow`: the longest sleep in seconds; `crashes`: whether handlers may take their process down.

        `steps`: how many times as likely a step is as each other kind.
        """
        self._random = random
        self._slow = slow
        self._crashes = crashes
        self._steps = steps
        self._number = 0

    def program(self, budget: int = 6, depth: int = 2) -> Program:
        """A program of up to `budget` parts."""
        ops: list[Op] = []
        left = self._random.randint(1, budget)
        while left > 0:
            op = self._op(left, depth)
            ops.append(op)
            left -= 1 + len(parts(Program((op,)))) // 2
        return Program(tuple(ops))

    def _key(self) -> str:
        self._number += 1
        return f"k{self._number}"

    def _op(self, budget: int, depth: int) -> Op:
        draw = self._random
        kinds = ["step"] * self._steps + ["sleep", "tell", "undo", "fail", "signal"]
        if depth and budget > 1:
            kinds += ["call", "call", "map", "gather"]
        kind = draw.choice(kinds)
        if kind == "call":
            program = self.program(budget // 2, depth - 1)
            return Call(self._key(), draw.choice(CAPABILITIES), program)
        if kind == "map":
            count = draw.randint(2, 4)
            children = tuple(self.program(1, 0) for _ in range(count))
            return Map(self._key(), draw.choice(CAPABILITIES), children, draw.choice([2, 100]))
        if kind == "gather":
            return Gather(tuple(self._leaf(depth) for _ in range(draw.randint(2, 3))))
        return self._plain(kind)

    def _leaf(self, depth: int) -> Op:
        if depth and self._random.random() < 0.5:
            program = self.program(2, depth - 1)
            return Call(self._key(), self._random.choice(CAPABILITIES), program)
        return self._plain(self._random.choice(["step", "step", "sleep", "signal"]))

    def _plain(self, kind: str) -> Op:
        draw = self._random
        if kind == "sleep":
            return Sleep(self._key(), draw.choice([0.0, 0.05, draw.random() * self._slow]))
        if kind == "tell":
            return Tell(draw.random())
        if kind == "undo":
            return Undo(self._key())
        if kind == "signal":
            return Signal(self._key())
        if kind == "fail" and draw.random() < 0.3:
            kinds: list[Literal["retryable", "permanent", "crash"]] = ["retryable", "permanent"]
            if self._crashes:
                kinds.append("crash")
            return Fail(self._key(), draw.choice(kinds), draw.choice([1, 2, 1000]))
        fails = draw.choice([0, 0, 0, 0, 1])
        return Step(self._key(), draw.randint(1, 99), draw.choice([0.0, 0.01, 0.5]), fails)
