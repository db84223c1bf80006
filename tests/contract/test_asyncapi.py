"""The AsyncAPI document is sound, complete, and says what the runtime does."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from switchgear.contract import entries, subjects
from switchgear.contract.export import catalog
from switchgear.coordinator import queries as answering
from switchgear.projections import answers
from tests.node.program import ROOT, require_node
from tests.patience import PATIENCE

DOCUMENT = ROOT / "schemas" / "asyncapi.json"
CHECK = Path(__file__).with_name("check-asyncapi.mjs")
SCOPE = subjects.scope("check-repo", "ana", "t1")

BUILT = {
    **{
        f"task_event {event}": subjects.task_event(SCOPE, event)
        for event in get_args(subjects.Event)
        if event != "dispatched"
    },
    "dispatched": subjects.dispatched(SCOPE, "p1", "high"),
    "live of an event": subjects.live_task(subjects.task_event(SCOPE, "completed")),
    "live of a dispatch": subjects.live_task(subjects.dispatched(SCOPE, "p1", "low")),
    "timer": subjects.timer(SCOPE, "deadline"),
    "due": subjects.due(SCOPE, "deadline"),
    "announce": subjects.announce("check-repo", "i1"),
    "control": subjects.control("check-repo", "i1"),
    "cancel": subjects.cancel("check-repo"),
    "progress": subjects.progress(SCOPE),
    "chunks": subjects.chunks(SCOPE),
    "crash": subjects.crash("check-repo", "i1"),
    "request": subjects.request("check-repo"),
    "topic for all": subjects.topic("pushed"),
    "topic for one": subjects.topic("pushed", "check-repo"),
    "cast for all": subjects.cast("pushed"),
    "cast for one": subjects.cast("pushed", "check-repo"),
    "schedule": subjects.schedule("ana", "nightly"),
    "trigger": subjects.trigger("check-repo"),
    "rollout": subjects.rollout("check-repo"),
    "breaker_order": subjects.breaker_order("01kjp9e2r0m7x3v5bqz8mtd4wc"),
    "lease": subjects.lease("sweep"),
    "own_intake": subjects.own_intake("check-repo", "ana"),
    "LEDGER_ROOM": subjects.LEDGER_ROOM,
    **{f"api {verb.name}": subjects.api(verb.name, "ana") for verb in catalog.VERBS},
}
"""One subject of every kind that the builders make."""

FILTERS = {
    "LEDGER_SUBJECTS": subjects.LEDGER_SUBJECTS,
    "TIMER_SUBJECTS": subjects.TIMER_SUBJECTS,
    "DUE_SUBJECTS": subjects.DUE_SUBJECTS,
    "ANNOUNCE_SUBJECTS": subjects.ANNOUNCE_SUBJECTS,
    "PROGRESS_SUBJECTS": subjects.PROGRESS_SUBJECTS,
    "CONFIG_SUBJECTS": subjects.CONFIG_SUBJECTS,
    "TOPIC_SUBJECTS": subjects.TOPIC_SUBJECTS,
    "CAST_SUBJECTS": subjects.CAST_SUBJECTS,
    "CRASH_SUBJECTS": subjects.CRASH_SUBJECTS,
    "OWN_INTAKES": subjects.OWN_INTAKES,
    "SUBMITTED_FILTER": subjects.SUBMITTED_FILTER,
    "REJECTED_FILTER": subjects.REJECTED_FILTER,
    **{f"TERMINAL_FILTERS {one}": one for one in subjects.TERMINAL_FILTERS},
    "intake_filter": subjects.intake_filter("check-repo", "ana"),
    "rejected_filter": subjects.rejected_filter("check-repo", "ana"),
    "live_capability": subjects.live_capability("check-repo", "ana"),
    **{f"TRANSITION_FILTERS {one}": one for one in subjects.TRANSITION_FILTERS},
    "scope": SCOPE,
    "live": subjects.live("ana"),
    **{f"live_answers {one}": one for one in subjects.live_answers("ana")},
    "live_task": subjects.live_task(SCOPE),
    "lane_filter": subjects.lane_filter("check-repo", "p1", "normal"),
    "capacity_timers": subjects.capacity_timers("check-repo"),
    **{f"api_filter {verb.name}": subjects.api_filter(verb.name) for verb in catalog.VERBS},
}
"""Every filter that somebody subscribes or consumes."""

NAMES_OF_NO_SUBJECT = {"is_token", "token", "ledger_of_live", "lane_consumer", "intake_consumer"}
"""Functions of `subjects` that build something else."""


def document() -> dict[str, Any]:
    return json.loads(DOCUMENT.read_text(encoding="utf-8"))


def addresses() -> dict[str, str]:
    """Channel -> address."""
    found = {name: one["address"] for name, one in document()["channels"].items()}
    return {name: address for name, address in found.items() if address}


def overlap(address: str, subject: str) -> bool:
    """Whether a subject, or a filter with wildcards, falls under an address."""
    parts = address.split(".")
    for number, token in enumerate(subject.split(".")):
        if token == ">":
            return len(parts) > number
        if number == len(parts):
            return False
        if token not in ("*", parts[number]) and not parts[number].startswith("{"):
            return False
    return len(parts) == subject.count(".") + 1


@pytest.mark.parametrize("name", BUILT)
def test_every_subject_falls_under_exactly_one_channel(name: str) -> None:
    under = [channel for channel, address in addresses().items() if overlap(address, BUILT[name])]
    assert len(under) == 1, under


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_catches_a_channel(name: str) -> None:
    assert any(overlap(address, FILTERS[name]) for address in addresses().values())


def test_every_builder_of_subjects_is_tried_here() -> None:
    built = {
        name
        for name, value in vars(subjects).items()
        if callable(value)
        and getattr(value, "__module__", "") == subjects.__name__
        and not isinstance(value, type)
        and not name.startswith(("_", "parse_"))
    }
    tried = {name.split()[0] for name in [*BUILT, *FILTERS]}
    assert built - NAMES_OF_NO_SUBJECT <= tried


def test_every_parameter_of_an_address_is_declared() -> None:
    for channel in document()["channels"].values():
        named = set(re.findall(r"\{([a-z]+)\}", channel["address"] or ""))
        assert named == set(channel.get("parameters", {}))


def test_every_message_is_carried_by_a_channel() -> None:
    carried = {name for one in document()["channels"].values() for name in one["messages"]}
    assert {message.name for message in catalog.messages()} <= carried
    assert carried == set(document()["components"]["messages"])


def test_every_ledger_entry_proves_its_compare_and_set() -> None:
    messages = document()["components"]["messages"]
    with_trait = {name for name, one in messages.items() if "traits" in one}
    assert with_trait == set(entries.ENTRIES)


def test_the_queue_groups_are_those_that_services_join() -> None:
    queues = {
        (operation["tags"][0]["name"], operation["bindings"]["nats"]["queue"])
        for operation in document()["operations"].values()
        if "queue" in operation["bindings"]["nats"]
    }
    assert queues == {("coordinator", answering.QUEUE), ("observer", answers.QUEUE)}


DAMAGE: dict[str, tuple[str, str]] = {
    "a missing schema file": ('"./completed.json"', '"./complete.json"'),
    "an unknown field of a NATS binding": ('"queue": "coordinators"', '"group": "coordinators"'),
    "an unknown action": ('"action": "send"', '"action": "emit"'),
    "a channel that is not there": ('"#/channels/announce"', '"#/channels/announced"'),
}
"""What must not pass, so that a pass means something."""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the reference parser says of the document, and of each damaged copy."""
    node = require_node("@asyncapi/parser")
    place = tmp_path_factory.mktemp("asyncapi")
    for path in (ROOT / "schemas").glob("*.json"):
        (place / path.name).write_bytes(path.read_bytes())
    text = DOCUMENT.read_text(encoding="utf-8")
    names = {str(DOCUMENT): "as published"}
    for number, (name, (was, becomes)) in enumerate(DAMAGE.items()):
        assert was in text
        path = place / f"damaged-{number}.json"
        path.write_text(text.replace(was, becomes, 1), encoding="utf-8")
        names[str(path)] = name
    done = subprocess.run(
        [str(node), str(CHECK), *names],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=2 * PATIENCE,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return {names[one["path"]]: one for one in said}


@pytest.mark.node
def test_the_reference_parser_accepts_the_document(parsed: dict[str, dict[str, Any]]) -> None:
    said = parsed["as published"]
    assert said["errors"] == said["warnings"] == []
    assert said["channels"] == len(document()["channels"])
    assert said["operations"] == len(document()["operations"])


@pytest.mark.node
@pytest.mark.parametrize("name", DAMAGE)
def test_the_reference_parser_would_notice(name: str, parsed: dict[str, dict[str, Any]]) -> None:
    assert parsed[name]["errors"]
