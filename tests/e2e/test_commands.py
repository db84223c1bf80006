"""Every command against a running mesh, found without any option."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Dev
from tests.patience import PATIENCE

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("nats_binary")]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, nats_binary: Path) -> Iterator[Dev]:
    """One mesh for this file; tests change nothing that others look at."""
    with Dev(tmp_path_factory.mktemp("dev")) as running:
        yield running


def test_a_task_is_submitted_and_its_result_printed(dev: Dev) -> None:
    told = dev.run("task", "submit", "greet", '{"name": "Ada"}', "--wait")
    assert told.code == 0, told.err
    assert json.loads(told.out) == {"text": "hello Ada"}
    for event in ("submitted", "dispatched", "50% thinking", "completed"):
        assert event in told.err


def test_on_a_terminal_progress_is_drawn_beside_the_data(dev: Dev) -> None:
    """The error output is a terminal; the result still goes to a pipe."""
    terminal, drawn = os.openpty()
    arguments = dev.command("task", "submit", "greet", '{"name": "slow"}', "--wait")
    process = subprocess.Popen(
        arguments, cwd=dev.folder, env=dev.environment | {"TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=drawn,
    )  # fmt: skip
    os.close(drawn)
    seen = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end was closed
        while data := os.read(terminal, 4096):
            seen += data
    os.close(terminal)
    output, _ = process.communicate(timeout=PATIENCE)
    assert json.loads(output) == {"text": "hello slow"}
    text = seen.decode()
    assert "\x1b[" in text
    assert "running" in text
    assert text.rindex("✓") > text.index("░")


def test_only_the_id_is_data(dev: Dev) -> None:
    told = dev.run("task", "submit", "greet", '{"name": "Ada"}')
    identity = told.out.strip()
    assert len(identity) == 26
    assert f"switchgear task result {identity}" in told.err
    result = dev.run("task", "result", identity, "--timeout", "50s")
    assert result.json == {"text": "hello Ada"}


def test_an_input_comes_from_a_file_or_the_standard_input(dev: Dev) -> None:
    (dev.folder / "input.json").write_text('{"name": "File"}', encoding="utf-8")
    from_file = dev.run("task", "submit", "greet", "@input.json", "--wait", "--json")
    assert from_file.json["output"] == {"text": "hello File"}
    piped = dev.run("task", "submit", "greet", "-", "--wait", "--json", input='{"name": "Pipe"}')
    assert piped.json["output"] == {"text": "hello Pipe"}
    assert piped.json["schema"] == "switchgear/result"
    assert piped.err == ""


def test_a_key_makes_a_submission_happen_once(dev: Dev) -> None:
    first = dev.submit("Key", "--key", "k1")
    assert dev.submit("Key", "--key", "k1") == first
    other = dev.run("task", "submit", "greet", '{"name": "Other"}', "--key", "k1")
    assert other.code == 7
    assert "SG1402" in other.err


def test_a_failed_task_ends_with_one_and_says_why(dev: Dev) -> None:
    told = dev.run("task", "submit", "greet", '{"name": "boom"}', "--wait", "--retry", "1")
    assert told.code == 1
    assert told.out == ""
    assert "SG1412" in told.err
    assert "ValueError: no such person" in told.err
    assert "Traceback" not in told.err


def test_a_bad_input_is_rejected_with_the_bad_field(dev: Dev) -> None:
    told = dev.run("task", "submit", "greet", '{"nam": "Ada"}', "--wait")
    assert told.code == 1
    assert "SG1203" in told.err
    assert "fix: " in told.err


def test_a_wait_that_ends_first_is_six(dev: Dev) -> None:
    told = dev.run("task", "submit", "greet", '{"name": "slow"}', "--wait", "--timeout", "0.2s")
    assert told.code == 6
    assert "SG1403" in told.err


def test_a_mistyped_capability_waits_and_is_suggested(dev: Dev) -> None:
    told = dev.run("task", "submit", "gret", "null")
    assert told.code == 0
    assert "Did you mean greet?" in told.err
    why = dev.run("explain", told.out.strip())
    assert "nobody offers" in why.out
    assert dev.run("task", "cancel", told.out.strip()).code == 0


def test_a_task_is_watched_to_its_end(dev: Dev) -> None:
    identity = dev.submit("slow")
    told = dev.run("task", "watch", identity, "--json")
    assert told.code == 0
    events = [line["event"] for line in told.lines]
    assert events[0] == "submitted"
    assert events[-1] == "completed"
    assert "progress" in events
    fractions = [line["fraction"] for line in told.lines if line["event"] == "progress"]
    assert fractions == sorted(fractions)


def test_watching_a_failed_task_ends_with_one(dev: Dev) -> None:
    identity = dev.submit("boom", "--retry", "1")
    told = dev.run("task", "watch", identity)
    assert told.code == 1
    assert told.out.splitlines()[-1].split()[2] == "dead"


def test_tasks_are_listed_shown_and_explained(dev: Dev) -> None:
    identity = dev.submit("Lister")
    assert dev.run("task", "result", identity).code == 0
    dev.until_listed(identity, "completed")
    listed = dev.run("task", "ls", "--search", identity, "--json")
    assert listed.json["schema"] == "switchgear/task-list"
    assert [row["id"] for row in listed.json["tasks"]] == [identity]
    table = dev.run("task", "ls", "--state", "completed")
    assert table.out.startswith("TASK")
    assert identity in table.out
    shown = dev.run("task", "show", identity, "--json").json
    assert [event["event"] for event in shown["events"]] == ["submitted", "dispatched", "completed"]
    assert shown["input"] == {"name": "Lister"}
    assert '{"name":"Lister"}' in dev.run("task", "show", identity).out
    why = dev.run("explain", identity)
    assert "the only pool that fits" in why.out
    assert "Ended: completed." in why.out
    assert dev.run("explain", identity, "--json").json["state"] == "completed"


def test_an_open_list_leaves_out_what_has_ended(dev: Dev) -> None:
    identity = dev.submit("Done")
    assert dev.run("task", "result", identity).code == 0
    dev.until_listed(identity, "completed")
    told = dev.run("task", "ls", "--open", "--search", identity)
    assert told.out == "no tasks\n"


def test_what_is_unknown_is_three_and_suggested(dev: Dev) -> None:
    told = dev.run("task", "show", "0" * 26)
    assert (told.code, "SG1401" in told.err) == (3, True)
    told = dev.run("capability", "show", "gret")
    assert (told.code, "did you mean greet?" in told.err) == (3, True)
    told = dev.run("agent", "show", "helo")
    assert (told.code, "did you mean hello" in told.err) == (3, True)
    assert dev.run("task", "show", "not an id").code == 2


def test_agents_and_capabilities_are_listed_and_shown(dev: Dev) -> None:
    instances = dev.run("agent", "ls", "--json").json["instances"]
    assert [one["agent"] for one in instances] == ["hello"]
    assert instances[0]["process"] == dev.pids["hello"]
    assert "greet" in dev.run("agent", "ls").out
    shown = dev.run("agent", "show", instances[0]["instance"])
    assert "Greet somebody." in shown.out
    assert dev.run("agent", "show", "hello", "--json").json["schema"] == "switchgear/agent"
    assert dev.run("capability", "ls").out.split()[6:9] == ["greet", "1.0.0", "hello"]
    assert dev.run("capability", "ls", "--json").json["capabilities"][0]["offer"]["name"] == "greet"
    capability = dev.run("capability", "show", "greet")
    assert "input schema" in capability.out
    assert """try: switchgear task submit greet '{"name": "…"}' --wait""" in capability.out
    pools = dev.run("capability", "show", "greet", "--json").json["pools"]
    assert pools[0]["offer"]["input_schema"]["$ref"] == "#/$defs/Who"


def test_the_doctor_finds_nothing_wrong(dev: Dev) -> None:
    told = dev.run("doctor", "--json")
    checks = {check["name"]: check for check in told.json["checks"]}
    assert told.code == 0
    assert {check["verdict"] for check in checks.values()} <= {"ok", "warn"}
    assert str(dev.folder) in checks["url"]["found"]
    assert "dev.json" in checks["url"]["found"]
    assert "2m0s" in checks["sync"]["found"]
    for name in ("broker", "coordinator", "read model", "clock", "disk", "stream SG_LEDGER"):
        assert checks[name]["verdict"] == "ok", checks[name]
    assert "0 fail" in dev.run("doctor").out


def test_a_mesh_is_found_from_a_folder_below_and_by_the_environment(dev: Dev) -> None:
    below = dev.folder / "a" / "b"
    below.mkdir(parents=True, exist_ok=True)
    dev_folder, dev.folder = dev.folder, below
    try:
        assert dev.run("agent", "ls").code == 0
        told = dev.run("agent", "ls", SWITCHGEAR_URL="nats://127.0.0.1:1")
        assert told.code == 5
    finally:
        dev.folder = dev_folder


def test_a_context_acts_as_another_principal(dev: Dev) -> None:
    url = dev.ready["url"]
    saved = dev.run("context", "save", "eve", "--url", url, "--principal", "eve")
    assert saved.code == 0
    identity = dev.submit("Private")
    assert dev.run("task", "show", identity, "--context", "eve").code == 3
    listed = dev.run("--json", "--context", "eve", "task", "ls").json
    assert identity not in [row["id"] for row in listed["tasks"]]


def test_a_second_mesh_in_the_same_folder_is_refused(dev: Dev) -> None:
    told = dev.run("dev")
    assert told.code == 2
    assert "runs in" in told.err
    assert "--state" in told.err
