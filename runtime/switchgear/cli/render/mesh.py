"""What the mesh offers: agents and capabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from switchgear.cli import words
from switchgear.cli.render.breakers import breakers
from switchgear.cli.render.tables import pairs, table, word

if TYPE_CHECKING:
    from switchgear.contract.announcement import Announcement
    from switchgear.contract.queries import CapabilityRow

_CUT = 70


def agents(instances: Sequence[Announcement], now: datetime) -> RenderableType:
    """The live instances, one a line."""
    if not instances:
        return Text("no agents: start one with `switchgear agent run MODULE:ATTR`")
    return table(
        ("INSTANCE", "AGENT", "VERSION", "STATE", "BUSY", "UP", "WHERE", "CAPABILITIES"),
        [
            (
                one.instance,
                one.agent,
                one.version,
                _state(one),
                f"{sum(one.busy.values())}/{sum(offer.concurrency for offer in one.offers)}",
                words.span(now - one.started),
                _where(one),
                ", ".join(offer.name for offer in one.offers),
            )
            for one in instances
        ],
    )


def agent(one: Announcement, now: datetime) -> RenderableType:
    """One instance: what it offers and what it runs."""
    head = pairs(
        [
            ("instance", one.instance),
            ("agent", f"{one.agent} {one.version}"),
            ("state", _state(one)),
            ("up", words.span(now - one.started)),
            ("announced", words.ago(one.time, now)),
            ("where", _where(one)),
            ("library", one.sdk),
            ("labels", ", ".join(f"{key}={value}" for key, value in one.labels.items())),
        ]
    )
    offers = table(
        ("CAPABILITY", "VERSION", "BUSY", "TIMEOUT", "ATTEMPTS", "CALLS", "DESCRIPTION"),
        [
            (
                offer.name,
                offer.version,
                f"{one.busy.get(offer.name, 0)}/{offer.concurrency}",
                words.span(offer.timeout) if offer.timeout else "none",
                str(offer.retry.max_attempts),
                ", ".join(offer.calls) or "-",
                words.one_line(offer.description, _CUT),
            )
            for offer in one.offers
        ],
    )
    parts: list[RenderableType] = [head, Text(), offers]
    if one.breakers:
        found = [(one.instance, state) for state in one.breakers]
        parts += [Text(), breakers(found, now)]
    if one.running:
        parts += [
            Text(),
            table(
                ("RUNNING", "CAPABILITY", "OWNER", "FOR"),
                [
                    (run.task, run.capability, run.owner, words.span(now - run.since))
                    for run in one.running
                ],
            ),
        ]
    return Group(*parts)


def capabilities(rows: Sequence[CapabilityRow]) -> RenderableType:
    """What is offered, one pool a line."""
    if not rows:
        return Text("nothing is offered: start an agent with `switchgear agent run MODULE:ATTR`")
    return table(
        ("CAPABILITY", "VERSION", "AGENT", "INSTANCES", "FREE", "DESCRIPTION"),
        [
            (
                row.offer.name,
                row.offer.version,
                ", ".join(row.agents),
                str(row.instances),
                str(row.free),
                words.one_line(row.offer.description, _CUT),
            )
            for row in rows
        ],
    )


def capability(rows: Sequence[CapabilityRow]) -> RenderableType:
    """One capability: its pools, then the schemas of the newest."""
    offer = rows[0].offer
    return Group(
        Text(offer.name, style="bold"),
        Text(offer.description),
        Text(),
        capabilities(rows),
        Text(),
        Text("input schema", style="bold"),
        Text(json.dumps(offer.input_schema, indent=2, ensure_ascii=False)),
        Text(),
        Text("output schema", style="bold"),
        Text(json.dumps(offer.output_schema, indent=2, ensure_ascii=False)),
        Text(),
        Text(f"try: switchgear task submit {offer.name} '{example(offer.input_schema)}' --wait"),
    )


def example(schema: dict[str, Any]) -> str:
    """A small input that has the shape of this schema: required fields only, empty values."""
    return json.dumps(_value(schema, schema, 0), ensure_ascii=False)


def _value(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    if "$ref" in schema and depth < 8:  # noqa: PLR2004 - deep enough for any example
        name = str(schema["$ref"]).rpartition("/")[2]
        return _value(root.get("$defs", {}).get(name, {}), root, depth + 1)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf"):
        if schema.get(several):
            return _value(schema[several][0], root, depth + 1)
    if schema.get("type") == "object":
        fields = schema.get("properties", {})
        wanted = schema.get("required", [])
        return {name: _value(fields.get(name, {}), root, depth + 1) for name in wanted}
    return _EMPTY.get(str(schema.get("type")))


_EMPTY: dict[str, Any] = {"string": "…", "integer": 0, "number": 0.0, "boolean": False, "array": []}


def _state(one: Announcement) -> Text:
    if one.draining:
        return word("draining", "waiting")
    return word("busy", "running") if sum(one.busy.values()) else word("idle", "ok")


def _where(one: Announcement) -> str:
    return f"{one.host}:{one.process}" if one.process else one.host
