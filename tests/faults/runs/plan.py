"""What a schedule does, drawn from its seed: who submits what, and which faults happen to whom, when, for how long."""

from __future__ import annotations

from random import Random
from typing import Literal, NamedTuple

from tests.programs.program import CAPABILITIES, Maker, Program

LEASE = 2.0
"""Seconds after which a silent instance loses what it runs."""
AGENTS = tuple(f"{capability}-{number}" for capability in CAPABILITIES for number in (1, 2))
COORDINATORS = ("coordinator-1", "coordinator-2")
SERVICES = (*AGENTS, *COORDINATORS)
CLIENT = "client"
SERVER = "server"
AGENT_POINTS = (
    "agent.before-checkpoint",
    "agent.after-checkpoint",
    "agent.before-completed",
    "agent.after-completed",
    "agent.after-take-over",
    "agent.before-waiting",
    "agent.after-waiting",
    "agent.after-attempt-failed",
    "agent.after-child-submitted",
)
COORDINATOR_POINTS = (
    "coordinator.before-append",
    "coordinator.after-append",
    "coordinator.before-effects",
    "coordinator.before-ack",
)
JUMPS = (-3600.0, -5.0, 5.0, 3600.0)
"""Seconds by which clocks jump."""
VERBS = ("PUB", "HPUB", "MSG", "HMSG", "")
"""Frames in the midst of which a connection is cut; empty: any."""

Kind = Literal[
    "agent killed",
    "coordinator killed",
    "server killed",
    "crash point",
    "frozen",
    "server frozen",
    "link cut",
    "link cut in a frame",
    "link swallows",
    "link held",
    "link slow",
    "clock jumps",
    "disk full",
]
PROCESSES: tuple[Kind, ...] = (
    "agent killed",
    "agent killed",
    "coordinator killed",
    "server killed",
    "crash point",
    "crash point",
    "crash point",
    "frozen",
    "server frozen",
)
LINES: tuple[Kind, ...] = (
    "link cut",
    "link cut in a frame",
    "link swallows",
    "link held",
    "link slow",
)


class Fault(NamedTuple):
    """One fault; what its fields mean depends on its kind."""

    at: float
    """Seconds since the schedule began."""
    kind: Kind
    target: str
    seconds: float = 0.0
    """How long it lasts, or how long a killed process stays away."""
    detail: str = ""
    """The crash point, the frame, or the direction."""
    amount: float = 0.0
    """Milliseconds of a slow link, or seconds of a jump."""


class Task(NamedTuple):
    """One root task."""

    at: float
    capability: str
    program: Program
    key: str
    again: bool = False
    """Submitted a second time with the same key."""
    deadline: float | None = None
    """Seconds after its submission."""
    cancelled: float | None = None
    """Seconds after its submission."""


class Plan(NamedTuple):
    """All that is known of a schedule before it begins."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    tasks: tuple[Task, ...]
    armed: dict[str, str]
    """Crash points of the first processes, by service: those have most to do."""
    clocks: bool
    """Its processes' clocks can be set."""
    small_disk: bool
    """Its ledger lies on a disk that can be filled."""


def plan(seed: int, seconds: float, *, clocks: bool = True, disks: bool = True) -> Plan:
    """Draw a schedule. `clocks`, `disks`: whether this machine can set clocks and mount small disks."""
    draw = Random(seed)  # noqa: S311  # repeatable on purpose
    with_clocks = draw.random() < 1 / 3 and clocks
    with_disk = draw.random() < 1 / 5 and disks
    kinds: list[Kind] = [*PROCESSES, *LINES]
    if with_clocks:
        kinds += ("clock jumps",) * 4
    count = draw.randint(round(seconds / 2), round(seconds * 1.5))
    faults = [_fault(draw, kinds, draw.uniform(0, seconds)) for _ in range(count)]
    if with_disk:
        faults.append(
            Fault(draw.uniform(0, seconds / 2), "disk full", SERVER, draw.uniform(0.3, 2))
        )
    maker = Maker(draw, slow=seconds / 3)
    tasks = [_task(draw, maker, seed, number, seconds) for number in range(round(seconds) + 4)]
    armed = {name: _point(draw, name, [1, 2, 5, 10]) for name in draw.sample(SERVICES, 3)}
    return Plan(
        seed,
        seconds,
        tuple(sorted(faults)),
        tuple(sorted(tasks, key=_at)),
        armed,
        with_clocks,
        with_disk,
    )


def _point(draw: Random, service: str, passings: list[int]) -> str:
    points = COORDINATOR_POINTS if service in COORDINATORS else AGENT_POINTS
    return f"{draw.choice(points)}:{draw.choice(passings)}"


def _at(task: Task) -> float:
    return task.at


def _task(draw: Random, maker: Maker, seed: int, number: int, seconds: float) -> Task:
    return Task(
        draw.uniform(0, seconds * 0.8),
        draw.choice(CAPABILITIES),
        maker.program(),
        f"{seed}/{number}",
        again=draw.random() < 0.2,
        deadline=draw.uniform(1, seconds) if draw.random() < 0.15 else None,
        cancelled=draw.uniform(0, seconds / 2) if draw.random() < 0.15 else None,
    )


def _fault(draw: Random, kinds: list[Kind], at: float) -> Fault:
    kind = draw.choice(kinds)
    away = draw.choice([0.0, 0.1, 1.0])
    if kind == "agent killed":
        return Fault(at, kind, draw.choice(AGENTS), away)
    if kind == "coordinator killed":
        return Fault(at, kind, draw.choice(COORDINATORS), away)
    if kind == "server killed":
        return Fault(at, kind, SERVER, draw.choice([0.0, 0.2, 1.5]))
    if kind == "crash point":
        target = draw.choice(SERVICES)
        return Fault(at, kind, target, 0.0, _point(draw, target, [1, 1, 2]))
    if kind == "server frozen":
        return Fault(at, kind, SERVER, draw.choice([0.2, 1.5]))
    if kind == "frozen":
        return Fault(at, kind, draw.choice(SERVICES), draw.choice([0.3, LEASE - 0.5, LEASE + 1.5]))
    if kind == "clock jumps":
        return Fault(at, kind, draw.choice((*SERVICES, CLIENT)), amount=draw.choice(JUMPS))
    return _line_fault(draw, kind, at)


def _line_fault(draw: Random, kind: Kind, at: float) -> Fault:
    target = draw.choice((*SERVICES, CLIENT))
    seconds = draw.choice([0.3, LEASE - 0.5, LEASE + 1.5])
    way = draw.choice(["up", "down", "both"])
    if kind == "link cut in a frame":
        return Fault(at, kind, target, 0.0, f"{draw.choice(['up', 'down'])}:{draw.choice(VERBS)}")
    if kind == "link slow":
        return Fault(at, kind, target, seconds, amount=draw.choice([20.0, 200.0]))
    return Fault(at, kind, target, seconds, way)
