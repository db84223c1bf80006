"""Every subject pattern of the protocol with the messages on it, from the builders in `subjects`."""

from __future__ import annotations

from typing import NamedTuple

from switchgear.contract import subjects
from switchgear.contract.entries import ENTRIES
from switchgear.contract.export import catalog

SCOPE = subjects.scope("{capability}", "{owner}", "{task}")


class Channel(NamedTuple):
    """A subject pattern and the messages on it."""

    address: str | None
    summary: str
    messages: tuple[str, ...]


def channels() -> dict[str, Channel]:
    """Every subject pattern of the protocol, by name."""
    found = {f"task-{event}": _ledger(event) for event in ENTRIES}
    found |= _streamed()
    found |= _told()
    found |= _topics()
    found |= kept()
    for verb in catalog.VERBS:
        found[f"api-{verb.name}"] = Channel(
            subjects.api(verb.name, "{principal}"),
            f"Questions for the {verb.by}; one request, one answer.",
            (verb.query.name,),
        )
    answers = tuple(dict.fromkeys(verb.answer.name for verb in catalog.VERBS))
    found["answers"] = Channel(
        None, "The inbox that a request names.", (*answers, "problem", "value")
    )
    return found


def _streamed() -> dict[str, Channel]:
    """What accompanies the ledger: its republished entries, timers, announcements."""
    return {
        "live": Channel(
            subjects.live_task(f"{SCOPE[:-1]}{{event}}"),
            "Entries as they are stored, republished by the server; stored nowhere.",
            tuple(event for event in ENTRIES if event != "dispatched"),
        ),
        "live-dispatched": Channel(
            subjects.live_task(subjects.dispatched(SCOPE, "{pool}", "{priority}")),
            "Dispatches as they are stored, republished by the server; stored nowhere.",
            ("dispatched",),
        ),
        "timer": Channel(
            subjects.timer(SCOPE, "{kind}"),
            "A durable timer, one a subject, in SG_TIMERS.",
            ("timer",),
        ),
        "due": Channel(
            subjects.due(SCOPE, "{kind}"),
            "A timer that is due, or a wake: look at this task again.",
            ("due",),
        ),
        "announce": Channel(
            subjects.announce("{agent}", "{instance}"),
            "What an instance says of itself, in SG_REGISTRY; gone when its TTL ends.",
            ("announcement",),
        ),
    }


def _told() -> dict[str, Channel]:
    """Core messages that nobody asks for."""
    return {
        "control": Channel(
            subjects.control("{agent}", "{instance}"), "Commands for one instance.", ("command",)
        ),
        "cancel": Channel(
            subjects.cancel("{capability}"),
            "For all instances of a capability: one of its tasks is being cancelled.",
            ("cancel",),
        ),
        "progress": Channel(
            subjects.progress(SCOPE),
            "Newest progress of a running task, kept for an hour in SG_PROGRESS.",
            ("progress",),
        ),
        "chunk": Channel(
            subjects.chunks(SCOPE), "What a running task streams; stored nowhere.", ("chunk",)
        ),
        "crash": Channel(
            subjects.crash("{agent}", "{instance}"),
            "How an instance died, kept for an hour in SG_PROGRESS.",
            ("crash-report",),
        ),
        "request": Channel(
            subjects.request("{agent}"),
            "Direct requests: one instance of the agent answers.",
            ("topic-message",),
        ),
    }


def _topics() -> dict[str, Channel]:
    """Messages on topics, for everybody or for one agent."""
    found: dict[str, Channel] = {}
    for name, build, how in (
        ("topic", subjects.topic, "Messages of a durable topic, in SG_TOPICS"),
        ("cast", subjects.cast, "Messages of a topic that is not durable, stored nowhere"),
    ):
        address = build("{topic}")
        found[name] = Channel(address, f"{how}.", ("topic-message",))
        address = build("{topic}", "{agent}")
        found[f"{name}-to"] = Channel(address, f"{how}: for one agent.", ("topic-message",))
    return found


def kept() -> dict[str, Channel]:
    """Documents in SG_CONFIG; the newest of each subject counts."""
    private = ("coordinators-own",)
    return {
        "schedule": Channel(subjects.schedule("{owner}", "{name}"), "A schedule.", ("schedule",)),
        "trigger": Channel(
            subjects.trigger("{capability}"),
            "What starts tasks of a capability, as its newest version declares it.",
            ("trigger",),
        ),
        "rollout": Channel(
            subjects.rollout("{capability}"),
            "On which executor a capability's steps run; agents watch it.",
            ("rollout",),
        ),
        "breaker-order": Channel(
            subjects.breaker_order("{name}"),
            "An order that an operator gave breakers: the record of it.",
            ("breaker-order",),
        ),
        "lease": Channel(subjects.lease("{name}"), "Which replica does a job.", private),
        "own-intake": Channel(
            subjects.own_intake("{capability}", "{owner}"),
            "That an owner's submissions have an intake of their own.",
            private,
        ),
        "ledger-room": Channel(subjects.LEDGER_ROOM, "That the ledger's limit is raised.", private),
    }


def _ledger(event: str) -> Channel:
    address = (
        subjects.dispatched(SCOPE, "{pool}", "{priority}")
        if event == "dispatched"
        else SCOPE[:-1] + event
    )
    ends = " It ends the task." if event in subjects.TERMINAL else ""
    return Channel(address, f"Ledger entries `{event}`, in SG_LEDGER.{ends}", (event,))
