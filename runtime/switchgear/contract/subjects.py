"""Subjects: built and parsed here and nowhere else. Every placeholder is one token of [A-Za-z0-9_-]{1,64}."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

from switchgear.errors import ProtocolError

TOKEN = "[A-Za-z0-9_-]{1,64}"  # noqa: S105  # a pattern
_TOKEN = re.compile(TOKEN)

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")

Event = Literal[
    "submitted",
    "rejected",
    "dispatched",
    "taken-over",
    "released",
    "checkpoint",
    "waiting",
    "signalled",
    "attempt-failed",
    "cancel-requested",
    "completed",
    "dead",
    "cancelled",
    "expired",
]
EVENTS: tuple[Event, ...] = get_args(Event)
TERMINAL: frozenset[str] = frozenset({"rejected", "completed", "dead", "cancelled", "expired"})

LEDGER_SUBJECTS = "sg.task.>"
LIVE_PREFIX = "sg.live."
TIMER_SUBJECTS = "sg.timer.>"
DUE_SUBJECTS = "sg.due.>"
ANNOUNCE_SUBJECTS = "sg.announce.>"
PROGRESS_SUBJECTS = "sg.progress.>"
CONFIG_SUBJECTS = "sg.config.>"
TOPIC_SUBJECTS = "sg.topic.>"
CAST_SUBJECTS = "sg.cast.>"
CRASH_SUBJECTS = "sg.crash.>"
OWN_INTAKES = "sg.config.intake.>"
"""Which owners have intakes of their own."""
LEDGER_ROOM = "sg.config.ledger-room"
"""Where it is kept that a coordinator has raised the ledger's limit, and from what."""
LOSSES = "sg.broker.disconnect"
"""Where the broker's own account tells of connections that ended, if its configuration exports that."""
SUBMITTED_FILTER = "sg.task.*.*.*.submitted"
TERMINAL_FILTERS = tuple(f"sg.task.*.*.*.{event}" for event in EVENTS if event in TERMINAL)
REJECTED_FILTER = "sg.task.*.*.*.rejected"
TRANSITION_FILTERS = (
    "sg.task.*.*.*.attempt-failed",
    "sg.task.*.*.*.waiting",
    "sg.task.*.*.*.signalled",
    "sg.task.*.*.*.cancel-requested",
)

_OTHERWISE = ("submitted", "dispatched")
_LANE = ("capability", "pool", "priority")
_TASK = re.compile(
    rf"sg\.task\.({TOKEN})\.({TOKEN})\.({TOKEN})\.(?:dispatched\.({TOKEN})\.(high|normal|low)"
    "|(submitted|rejected|taken-over|released|checkpoint|waiting|signalled|attempt-failed"
    "|cancel-requested|completed|dead|cancelled|expired))"
)
_TIMER = re.compile(rf"sg\.(?:timer|due)\.({TOKEN})\.({TOKEN})\.({TOKEN})\.({TOKEN})")
_ANNOUNCE = re.compile(rf"sg\.announce\.({TOKEN})\.({TOKEN})")
_OWN_INTAKE = re.compile(rf"sg\.config\.intake\.({TOKEN})\.({TOKEN})")
_TOPIC = re.compile(rf"sg\.(?:topic|cast)\.({TOKEN})\.(?:all|to\.({TOKEN}))")
_API = re.compile(rf"sg\.api\.({TOKEN})\.({TOKEN})")


class TaskSubject(NamedTuple):
    """The parts of a ledger subject; `pool` and `priority` are set for `dispatched` only."""

    capability: str
    owner: str
    task: str
    event: str
    pool: str = ""
    priority: str = ""

    @property
    def scope(self) -> str:
        """The filter that holds all entries of the task."""
        return f"sg.task.{self.capability}.{self.owner}.{self.task}.>"


class TimerSubject(NamedTuple):
    """The parts of a timer's subject, and of the due message that it becomes."""

    capability: str
    owner: str
    task: str
    kind: str

    @property
    def scope(self) -> str:
        """The filter that holds all entries of the task that the timer is for."""
        return f"sg.task.{self.capability}.{self.owner}.{self.task}.>"


def is_token(text: str) -> bool:
    """Whether the text can stand as one token of a subject."""
    return _TOKEN.fullmatch(text) is not None


def token(text: str, what: str) -> str:
    """The text itself; `what` names it in the error. Raises ProtocolError SG1107."""
    if _TOKEN.fullmatch(text) is None:
        raise ProtocolError(
            f"{what} {text[:80]!r} cannot be part of a subject",
            code="SG1107",
            fix="use 1 to 64 letters, digits, - and _",
        )
    return text


def scope(capability: str, owner: str, task: str) -> str:
    """The filter that holds all entries of one task: the subject of every compare-and-set on it."""
    return f"sg.task.{capability}.{owner}.{task}.>"


def task_event(task_scope: str, event: Event) -> str:
    """The subject of an event of the task with this scope; not for `dispatched`."""
    return task_scope[:-1] + event


def dispatched(task_scope: str, pool: str, priority: str) -> str:
    """The subject of a dispatch: the work item of one lane."""
    return f"{task_scope[:-1]}dispatched.{pool}.{priority}"


def parse_task(subject: str) -> TaskSubject:
    """The parts of a ledger subject. Raises ProtocolError SG1107."""
    match = _TASK.fullmatch(subject)
    if match is None:
        raise ProtocolError(f"{subject[:200]!r} is not a task's subject", code="SG1107")
    capability, owner, task, pool, priority, event = match.groups()
    if event is None:
        return TaskSubject(capability, owner, task, "dispatched", pool, priority)
    return TaskSubject(capability, owner, task, event)


def live(owner: str) -> str:
    """All entries of the owner's tasks, as they are stored."""
    return f"sg.live.*.{owner}.>"


def live_answers(owner: str) -> list[str]:
    """The same without `submitted`, which a submitter knows: a third of its messages saved."""
    plain = [f"sg.live.*.{owner}.*.{event}" for event in EVENTS if event not in _OTHERWISE]
    return [*plain, f"sg.live.*.{owner}.*.dispatched.>"]


def live_capability(capability: str, owner: str) -> str:
    """All entries of the owner's tasks of one capability, as they are stored."""
    return f"sg.live.{capability}.{owner}.>"


def live_task(task_scope: str) -> str:
    """What a watcher of one task subscribes."""
    return LIVE_PREFIX + task_scope[len("sg.task.") :]


def ledger_of_live(subject: str) -> str:
    """The ledger subject that a live message was stored under."""
    return f"sg.task.{subject[len(LIVE_PREFIX) :]}"


def lane_filter(capability: str, pool: str, priority: str) -> str:
    """What the consumer of a lane delivers."""
    return f"sg.task.{capability}.*.*.dispatched.{pool}.{priority}"


def lane_consumer(capability: str, pool: str, priority: str) -> str:
    """The name of a lane's durable consumer; `=` stands in no token, so names cannot collide."""
    return f"lane={capability}={pool}={priority}"


def parse_lane(consumer: str) -> tuple[str, str, str] | None:
    """Capability, pool and priority of a lane's consumer; None for any other name."""
    kind, _, rest = consumer.partition("=")
    parts = rest.split("=")
    return (parts[0], parts[1], parts[2]) if kind == "lane" and len(parts) == len(_LANE) else None


def timer(task_scope: str, kind: str) -> str:
    """Where a task's timer of this kind is stored until it is due."""
    return f"sg.timer.{task_scope[len('sg.task.') : -1]}{kind}"


def due(task_scope: str, kind: str) -> str:
    """Where the server publishes when a task's timer is due, and where wakes go."""
    return f"sg.due.{task_scope[len('sg.task.') : -1]}{kind}"


def capacity_timers(capability: str) -> str:
    """The timers of all tasks that wait until somebody offers the capability."""
    return f"sg.timer.{capability}.*.*.capacity"


def parse_timer(subject: str) -> TimerSubject:
    """The parts of a timer's or a due message's subject. Raises ProtocolError SG1107."""
    match = _TIMER.fullmatch(subject)
    if match is None:
        raise ProtocolError(f"{subject[:200]!r} is not a timer's subject", code="SG1107")
    return TimerSubject(*match.groups())


def announce(agent: str, instance: str) -> str:
    """Where an instance announces itself."""
    return f"sg.announce.{agent}.{instance}"


def parse_announce(subject: str) -> tuple[str, str]:
    """Agent and instance of an announcement's subject. Raises ProtocolError SG1107."""
    match = _ANNOUNCE.fullmatch(subject)
    if match is None:
        raise ProtocolError(f"{subject[:200]!r} is not an announcement's subject", code="SG1107")
    agent, instance = match.groups()
    return agent, instance


def topic(name: str, to: str | None = None) -> str:
    """Where a durable topic's messages are stored: for everybody, or for one agent."""
    return f"sg.topic.{name}.all" if to is None else f"sg.topic.{name}.to.{to}"


def cast(name: str, to: str | None = None) -> str:
    """The same for a topic that is not durable: a core message, stored nowhere."""
    return f"sg.cast.{name}.all" if to is None else f"sg.cast.{name}.to.{to}"


def parse_topic(subject: str) -> tuple[str, str]:
    """Topic and addressed agent (empty: everybody) of a message's subject. Raises ProtocolError SG1107."""
    match = _TOPIC.fullmatch(subject)
    if match is None:
        raise ProtocolError(f"{subject[:200]!r} is not a topic's subject", code="SG1107")
    name, to = match.groups()
    return name, to or ""


def request(agent: str) -> str:
    """Where one of an agent's instances takes a direct request."""
    return f"sg.request.{agent}"


def schedule(owner: str, name: str) -> str:
    """Where a schedule is kept."""
    return f"sg.config.schedule.{owner}.{name}"


def trigger(capability: str) -> str:
    """Where it is kept what starts tasks of a capability, as its agents announced it."""
    return f"sg.config.trigger.{capability}"


def rollout(capability: str) -> str:
    """Where it is kept on which executor a capability's steps run."""
    return f"sg.config.rollout.{capability}"


def breaker_order(order: str) -> str:
    """Where an order for breakers is kept."""
    return f"sg.config.breaker.{order}"


def lease(name: str) -> str:
    """Where it is kept which replica does a job that one alone shall do."""
    return f"sg.config.lease.{name}"


def own_intake(capability: str, owner: str) -> str:
    """Where it is kept that an owner's submissions for a capability have an intake of their own."""
    return f"sg.config.intake.{capability}.{owner}"


def parse_own_intake(subject: str) -> tuple[str, str]:
    """Capability and owner of such a document. Raises ProtocolError SG1107."""
    match = _OWN_INTAKE.fullmatch(subject)
    if match is None:
        raise ProtocolError(f"{subject[:200]!r} is not an intake's document", code="SG1107")
    capability, owner = match.groups()
    return capability, owner


def intake_consumer(capability: str, owner: str) -> str:
    """The name of an owner's own durable intake; `=` stands in no token, so names cannot collide."""
    return f"intake={capability}={owner}"


def intake_filter(capability: str, owner: str) -> str:
    """What an owner's own intake delivers."""
    return f"sg.task.{capability}.{owner}.*.submitted"


def rejected_filter(capability: str, owner: str) -> str:
    """The rejections of an owner's submissions for a capability."""
    return f"sg.task.{capability}.{owner}.*.rejected"


def control(agent: str, instance: str) -> str:
    """Where one instance takes commands, such as drain."""
    return f"sg.control.{agent}.{instance}"


def crash(agent: str, instance: str) -> str:
    """Where it is kept for a while how an instance died."""
    return f"sg.crash.{agent}.{instance}"


def cancel(capability: str) -> str:
    """Where all instances of a capability hear which of its tasks is cancelled."""
    return f"sg.cancel.{capability}"


def progress(task_scope: str) -> str:
    """Where a running task's newest progress is kept."""
    return f"sg.progress.{task_scope[len('sg.task.') : -2]}"


def chunks(task_scope: str) -> str:
    """Where a running task's streamed chunks go: core messages, stored nowhere."""
    return f"sg.chunk.{task_scope[len('sg.task.') : -2]}"


def api(verb: str, principal: str) -> str:
    """Where a principal asks a coordinator or the read model."""
    return f"sg.api.{verb}.{principal}"


def api_filter(verb: str) -> str:
    """What the service behind a verb subscribes."""
    return f"sg.api.{verb}.*"


def parse_api(subject: str) -> tuple[str, str]:
    """Verb and principal of a query's subject. Raises ProtocolError SG1107."""
    match = _API.fullmatch(subject)
    if match is None:
        raise ProtocolError(f"{subject[:200]!r} is not a query's subject", code="SG1107")
    verb, principal = match.groups()
    return verb, principal
