"""The doctor's verdicts."""

from __future__ import annotations

import re
from datetime import timedelta
from importlib import metadata
from typing import Any

import pytest

from switchgear.bus.streams import StreamSettings, configs
from switchgear.cli import checks
from switchgear.errors import ServerMissing, Unavailable

GIB = 1024**3


def test_the_interpreter() -> None:
    assert checks.python((3, 11, 7)).verdict == "ok"
    assert checks.python((3, 10, 1)).verdict == "fail"


def test_missing_extras_are_named_with_the_command() -> None:
    assert checks.extras({"cli": [], "fast": []}).verdict == "ok"
    check = checks.extras({"cli": [], "fast": ["uvloop"]})
    assert check.verdict == "warn"
    assert check.fix == "pip install 'switchgear[fast]'"


def test_each_extra_is_known_by_modules_that_it_brings() -> None:
    """Else an extra would be told to be missing for ever, however often it is installed."""
    wanted: dict[str, set[str]] = {}
    for line in metadata.requires("switchgear") or ():
        name, _, marker = line.partition(";")
        if found := re.search("extra == '([a-z]+)'", marker):
            wanted.setdefault(found[1], set()).add(re.split(r"[^\w-]", name)[0])
    brought = metadata.packages_distributions()
    for extra, modules in checks.EXTRAS.items():
        for module in modules:
            assert {name.lower().replace("_", "-") for name in brought[module]} & wanted[extra], (
                extra,
                module,
            )
    assert wanted.keys() - checks.EXTRAS.keys() == {"all", "dev", "server"}


def test_a_missing_binary_is_a_warning() -> None:
    assert checks.binary("/bin/nats-server", None).verdict == "ok"
    assert checks.binary("", ServerMissing("none")).verdict == "warn"


def test_an_error_is_a_failed_check_with_its_fix() -> None:
    check = checks.failed("broker", Unavailable("no connection", why="refused", fix="start it"))
    assert check == checks.Check("broker", "fail", "SG1301 no connection: refused", "start it")


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (checks.sandbox("", "required"), "ok"),
        (checks.sandbox("bubblewrap is not installed", "required"), "warn"),
        (checks.sandbox("bubblewrap is not installed", "preferred"), "warn"),
        (checks.sandbox("", "none"), "warn"),
        (checks.round_trip(timedelta(milliseconds=3)), "ok"),
        (checks.round_trip(timedelta(milliseconds=80)), "warn"),
        (checks.payload(1024 * 1024), "ok"),
        (checks.payload(64 * 1024), "fail"),
        (checks.jetstream(enabled=True), "ok"),
        (checks.jetstream(enabled=False), "fail"),
        (checks.sync("always", is_local=False), "ok"),
        (checks.sync("2m0s", is_local=True), "ok"),
        (checks.sync("2m0s", is_local=False), "warn"),
        (checks.sync("unknown", is_local=True), "warn"),
        (checks.coordinator(timedelta(milliseconds=2), 3), "ok"),
        (checks.agents(2, 1), "ok"),
        (checks.agents(0, 0), "warn"),
        (checks.read_model(3), "ok"),
        (checks.read_model(50_000), "warn"),
        (checks.clock(timedelta(milliseconds=-40)), "ok"),
        (checks.clock(timedelta(seconds=3)), "warn"),
        (checks.disk(50 * GIB, 100 * GIB, "/x"), "ok"),
        (checks.disk(GIB, 100 * GIB, "/x"), "warn"),
        (checks.processes({"server": 0}, "/x"), "ok"),
        (checks.processes({"server": 0, "hello": 2}, "/x"), "warn"),
    ],
    ids=lambda value: f"{value.name}: {value.found}" if isinstance(value, checks.Check) else value,
)
def test_a_fact_has_its_verdict(check: checks.Check, verdict: str) -> None:
    assert check.verdict == verdict
    assert check.found
    assert bool(check.fix) == (verdict != "ok")


def ledger() -> dict[str, Any]:
    return configs(StreamSettings())[0]


def test_a_stream_that_is_missing_or_set_up_otherwise_fails() -> None:
    wanted = ledger()
    assert checks.stream("SG_LEDGER", None, wanted).verdict == "fail"
    assert checks.stream("SG_LEDGER", wanted, wanted).verdict == "ok"
    other = {**wanted, "allow_msg_ttl": True}
    check = checks.stream("SG_LEDGER", other, wanted)
    assert check.verdict == "fail"
    assert check.found == "allow_msg_ttl is True, not False"


def test_sizes_and_replicas_are_the_operators_choice() -> None:
    wanted = ledger()
    chosen = {**wanted, "max_bytes": 1, "num_replicas": 3}
    assert checks.stream("SG_LEDGER", chosen, wanted).verdict == "ok"


def test_what_the_broker_leaves_out_is_false() -> None:
    wanted = ledger()
    answered = {field: value for field, value in wanted.items() if value is not False}
    assert checks.stream("SG_LEDGER", answered, wanted).verdict == "ok"


def test_the_clock_says_who_is_ahead() -> None:
    assert checks.clock(timedelta(milliseconds=40)).found == "40 ms ahead of the broker"
    assert checks.clock(timedelta(milliseconds=-40)).found == "40 ms behind the broker"
