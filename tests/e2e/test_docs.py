"""What the pages show works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.mesh import Dev, until
from tests.patience import PATIENCE

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("nats_binary")]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def python_blocks(page: Path) -> list[str]:
    """The Python code of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_agent_of_the_how_to_runs(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "write-an-agent.md").read_text(encoding="utf-8")
    code = python_blocks(DOCS / "how-to" / "write-an-agent.md")[0]
    shown = re.findall(r"^\$ switchgear (task submit .*)$", page, re.MULTILINE)
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    with Dev(tmp_path, "page:agent") as dev:
        answers = [dev.run(*shlex.split(line)) for line in shown]
        assert [answer.code for answer in answers] == [0, 0], answers[-1].err
    assert json.loads(answers[0].out) == {"text": "Hello, Ada!"}
    assert json.loads(answers[1].out)["printed"] == "Hello, Ada! / Hello, Grace!"


def test_the_readme_works_as_it_stands_there(tmp_path: Path) -> None:
    """The first agent runs in a mesh, and the program beside it finds that mesh by itself."""
    agent, program = python_blocks(ROOT / "README.md")
    (tmp_path / "greeter.py").write_text(agent, encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    with Dev(tmp_path, "greeter:agent") as dev:
        told = dev.run("task", "submit", "greet", '{"name": "Ada"}', "--wait")
        assert "Hello, Ada!" in told.out
        ran = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, env=dev.environment,
            capture_output=True, text=True, timeout=2 * PATIENCE, check=True,
        )  # fmt: skip
    assert {"Hello, Ada!", "Hello, Grace!", "Hello, Edsger!"} == set(ran.stdout.splitlines())


def test_the_tutorials_agent_counts(tmp_path: Path) -> None:
    """What the tutorial submits is answered, and what does not fit is rejected as it says."""
    (agent,) = python_blocks(ROOT / "docs" / "tutorial.md")
    (tmp_path / "counter.py").write_text(agent, encoding="utf-8")
    with Dev(tmp_path, "counter:agent") as dev:
        told = dev.run("task", "submit", "count-words", '{"text": "the quick brown fox"}', "--wait")
        assert (told.code, '"words":4' in told.out.replace(" ", "")) == (0, True)
        refused = dev.run("task", "submit", "count-words", '{"text": 7}', "--wait")
    assert (refused.code, "SG1203" in refused.err) == (1, True)


def test_the_how_to_of_schedules_works(tmp_path: Path) -> None:
    """The agent's own schedule and the program's are there; each command does what it says."""
    agent, program = python_blocks(DOCS / "how-to" / "schedule-work.md")
    page = (DOCS / "how-to" / "schedule-work.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ switchgear (.*)$", page, re.MULTILINE)
    (tmp_path / "reporter.py").write_text(agent, encoding="utf-8")
    (tmp_path / "weekly.py").write_text(program, encoding="utf-8")
    with Dev(tmp_path, "reporter:agent") as dev:
        ran = subprocess.run(
            [sys.executable, "weekly.py"], cwd=tmp_path, env=dev.environment,
            capture_output=True, text=True, timeout=2 * PATIENCE, check=True,
        )  # fmt: skip
        assert ran.stdout.startswith("weekly 20")
        declared = until(
            lambda: dev.run("schedule", "ls", "--agent", "reporter", "--json").json["schedules"],
            "the agent's schedule",
        )
        answers = [dev.run(*shlex.split(line)) for line in shown]
        assert [answer.code for answer in answers] == [0] * len(shown), answers[-1].err
        assert {"nightly", "weekly"} <= set(answers[1].out.split())
        offered = dev.run("capability", "ls", "--json").json["capabilities"]
        announced = dev.run("agent", "show", "reporter", "--json").json["instances"]
    assert declared[0]["schedule"]["cron"]["timezone"] == "Europe/Berlin"
    offers = [offered[0]["offer"], announced[0]["offers"][0]]
    assert [offer["crons"][0]["input"] for offer in offers] == [{"name": "north"}] * 2


def test_the_how_to_of_topics_works(tmp_path: Path) -> None:
    """The program hears what the task that it started publishes, and asks an instance."""
    agent, program = python_blocks(DOCS / "how-to" / "talk-between-agents.md")
    (tmp_path / "release.py").write_text(agent, encoding="utf-8")
    (tmp_path / "tagging.py").write_text(program, encoding="utf-8")
    with Dev(tmp_path, "release:agent") as dev:
        ran = subprocess.run(
            [sys.executable, "tagging.py"], cwd=tmp_path, env=dev.environment,
            capture_output=True, text=True, timeout=2 * PATIENCE, check=True,
        )  # fmt: skip
        assert ran.stdout.splitlines() == ["app-1.2.0 by release", "1.2.0"]
        tail = dev.start("topic", "tail", "built", "--count", "1", "--json")
        assert tail.stdout is not None
        assert "hearing built" in tail.stdout.readline()
        told = dev.run("topic", "publish", "tagged", '{"ref": "1.2.1"}', "--key", "1.2.1")
        assert told.code == 0, told.err
        heard = json.loads(tail.stdout.readline())
        tail.wait(PATIENCE)
        tail.stdout.close()
    assert (heard["value"], heard["sender"]) == ({"name": "app-1.2.1"}, "release")


CONVERTER = """
from pathlib import Path
from msgspec import Struct
from switchgear import Agent, Context, Permanent

agent = Agent("converter", version="1.0.0")

class Sum(Struct):
    amount: int

@agent.capability("convert")
async def convert(sum: Sum, ctx: Context) -> int:
    if not Path("mended").exists():
        raise Permanent(f"no such currency: {sum.amount}")
    return sum.amount * 2
"""


def ran(dev: Dev, program: str) -> list[str]:
    """The lines that a program beside the mesh prints."""
    done = subprocess.run(
        [sys.executable, program], cwd=dev.folder, env=dev.environment,
        capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_how_to_of_cancel_and_signal_works(tmp_path: Path) -> None:
    """The program answers, cancels and hurries; a question is listed and approved on the command line."""
    agent, program = python_blocks(DOCS / "how-to" / "cancel-signal-and-retry.md")
    (tmp_path / "release.py").write_text(agent, encoding="utf-8")
    (tmp_path / "approving.py").write_text(program, encoding="utf-8")
    with Dev(tmp_path, "release:agent") as dev:
        asked = dev.run("task", "submit", "release", '{"ref": "v1.2"}').out.strip()
        assert ran(dev, "approving.py") == [
            "build upload", "released v1.3", "wrong tag", "released v2",
        ]  # fmt: skip
        question = until(
            lambda: dev.run("task", "questions", "--json").json["questions"], "the question"
        )
        assert (question[0]["task"], question[0]["signal"]) == (asked, "review")
        assert question[0]["question"] == "Release v1.2? changes in v1.2"
        told = dev.run("task", "approve", asked, "--note", "looks good")
        assert told.code == 0, told.err
        assert dev.run("task", "result", asked, "--timeout", "50s").json == "released v1.2"
        assert dev.run("task", "cancel", asked).code == 7


def test_the_how_to_of_dead_letters_works(tmp_path: Path) -> None:
    """What died of one cause is found, tried again by the program, and shown with its tries."""
    (program,) = python_blocks(DOCS / "how-to" / "dead-letters.md")
    (tmp_path / "converter.py").write_text(CONVERTER, encoding="utf-8")
    (tmp_path / "mending.py").write_text(program, encoding="utf-8")
    with Dev(tmp_path, "converter:agent") as dev:
        for amount in (1, 2):
            told = dev.run("task", "submit", "convert", f'{{"amount": {amount}}}', "--wait")
            assert (told.code, "SG1412" in told.err) == (1, True)

        def both() -> list[dict[str, object]]:
            groups = dev.run("dead", "ls", "--json").json["groups"]
            return [group for group in groups if group["count"] == 2]

        [group] = until(both, "the dead tasks")
        planned = dev.run(
            "dead", "redrive", "--fingerprint", str(group["fingerprint"]), "--dry-run"
        )
        assert planned.out.count("would start") == 2
        (tmp_path / "mended").touch()
        lines = ran(dev, "mending.py")
        assert lines[0].startswith("convert 2 no such currency")
        assert lines[1:] == ["False True 2", "True True 4"]
        newest = str(group["newest"])
        letter = until(lambda: [dev.run("dead", "show", newest, "--json").json], "the letter")[0]
        assert [one["state"] for one in letter["redrives"]] == ["completed"]
        other = dev.run("dead", "redrive", newest, "--input", '{"amount": 50}', "--json")
        [again] = other.json["redrives"]
        assert (again["started"], again["changed"]) == (True, True)
        assert dev.run("task", "result", again["task"], "--timeout", "50s").json == 100


def test_the_how_to_of_durable_work_survives_a_kill(tmp_path: Path) -> None:
    """The order is charged once although its agent dies behind the step; then all its items are packed."""
    page = DOCS / "how-to" / "make-work-durable.md"
    (agent,) = python_blocks(page)
    [shown] = re.findall(
        r"^\$ switchgear (task submit .*) --wait$", page.read_text("utf-8"), re.MULTILINE
    )
    assert "timedelta(seconds=3)" in agent
    awake = agent.replace("timedelta(seconds=3)", "timedelta(seconds=9)")  # while one looks
    (tmp_path / "orders.py").write_text(awake, encoding="utf-8")
    with Dev(tmp_path, "orders:agent") as dev:
        task = dev.run(*shlex.split(shown)).out.strip()

        def is_charged() -> bool:
            instances = dev.run("agent", "ls", "--json").json["instances"]
            running = [one["task"] for found in instances for one in found.get("running", ())]
            events = dev.run("task", "show", task, "--json").json["events"]
            return task in running and "checkpoint" in [one["event"] for one in events]

        until(is_charged, "the charge, and who runs the task")
        os.kill(dev.pids["orders"], signal.SIGKILL)
        result = dev.run("task", "result", task, "--timeout", "50s")
        assert result.code == 0, result.err
        events = dev.run("task", "show", task, "--json").json["events"]
    assert result.json["parcels"] == ["parcel with cup", "parcel with pot"]
    assert "taken-over" in [one["event"] for one in events]
    [charged] = (tmp_path / "charged.txt").read_text(encoding="utf-8").splitlines()
    assert charged.startswith("o-1 20 ")


def test_the_how_to_of_undos_works(tmp_path: Path) -> None:
    """What failed or was cancelled is taken back, last first; what succeeded stays."""
    agent, program = python_blocks(DOCS / "how-to" / "undo-work.md")
    (tmp_path / "travel.py").write_text(agent, encoding="utf-8")
    (tmp_path / "booking.py").write_text(program, encoding="utf-8")
    with Dev(tmp_path, "travel:agent") as dev:
        assert ran(dev, "booking.py") == [
            "['flight-Rome', 'hotel-Rome']", "dead: SG1501 no such place", "cancelled: too far",
        ]  # fmt: skip
    journal = (tmp_path / "bookings.txt").read_text(encoding="utf-8").splitlines()
    undone = [
        f"{what} to {to} is {done}"
        for to in ("Atlantis", "Mars")
        for what, done in (
            ("flight", "booked"), ("hotel", "booked"), ("hotel", "cancelled"), ("flight", "cancelled"),
        )
    ]  # fmt: skip
    assert journal == ["flight to Rome is booked", "hotel to Rome is booked", *undone]


def test_the_how_to_of_waiting_for_people_works(tmp_path: Path) -> None:
    """Only who is asked may answer; a question that nobody answers goes on, and two waits need two answers."""
    page = DOCS / "how-to" / "wait-for-people.md"
    (agent,) = python_blocks(page)
    [groups] = re.findall(
        r"^\$ export SWITCHGEAR_GROUPS='(.*)'$", page.read_text("utf-8"), re.MULTILINE
    )
    (tmp_path / "expenses.py").write_text(agent, encoding="utf-8")
    with Dev(tmp_path, "expenses:agent", SWITCHGEAR_GROUPS=groups) as dev:

        def submitted(**expense: object) -> str:
            return dev.run("task", "submit", "reimburse", json.dumps(expense)).out.strip()

        def answered(task: str, signal: str, who: str) -> int:
            told = dev.run("task", "approve", task, "--signal", signal, SWITCHGEAR_PRINCIPAL=who)
            return told.code

        small = submitted(who="eve", amount=40)
        assert answered(small, "approval", "alice") == 4  # too early
        large = submitted(who="eve", amount=2000, patience=1)
        assert answered(large, "approval", "local") == 0

        def both_ask() -> bool:
            asked = dev.run("task", "questions", "--json").json["questions"]
            return {(one["task"], one["sender"]) for one in asked} == {
                (small, "approvers"), (large, "board"),
            }  # fmt: skip

        until(both_ask, "both questions")
        assert answered(small, "approval", "carol") == 4
        assert [answered(small, "approval", who) for who in ("local", "alice")] == [4, 0]
        assert dev.run("task", "result", small, "--timeout", "50s").json == "40 paid to eve"
        assert [answered(large, "board", who) for who in ("carol", "dan")] == [0, 0]
        assert dev.run("task", "result", large, "--timeout", "50s").json == "2000 paid to eve"


def test_the_how_to_of_operating_a_mesh_works(tmp_path: Path) -> None:
    """Each service starts as written and leaves in order; the doctor and an ordered drain agree."""
    page = (DOCS / "how-to" / "operate-a-mesh.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ switchgear (.*)$", page, re.MULTILINE)
    services = [line for line in lines if line.startswith(("coordinator", "observe", "agent run"))]
    assert len(services) == 3
    with Dev(tmp_path) as dev:
        started = [dev.start(*shlex.split(line)) for line in services]
        try:
            for service in started[:2]:
                assert service.stdout is not None
                assert any(".ready" in line for line in service.stdout)

            def agents() -> int:
                return len(dev.run("agent", "ls", "--json").json["instances"])

            until(lambda: agents() == 2, "the second instance")
            for line in set(lines) - set(services):
                told = dev.run(*shlex.split(line))
                assert told.code == 0, told.err
            assert agents() == 0
        finally:
            for service in started:
                service.terminate()
                service.communicate(timeout=PATIENCE)
    assert [service.returncode for service in started] == [0, 0, 0]


def test_the_how_to_of_pipelines_works(tmp_path: Path) -> None:
    """The file is fine, drawn as shown, and offered; what does not fit is rejected."""
    page = (DOCS / "how-to" / "write-a-pipeline.md").read_text(encoding="utf-8")
    [file] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    drawn, fault = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    (tmp_path / "pipelines").mkdir()
    path = tmp_path / "pipelines" / "publish.toml"
    path.write_text(file.replace('"write"]\nmatrix', '"wirte"]\nmatrix'), encoding="utf-8")
    (tmp_path / "publisher.py").write_text(
        python_blocks(DOCS / "how-to" / "write-a-pipeline.md")[0], encoding="utf-8"
    )
    switchgear = [sys.executable, "-m", "switchgear.cli", "pipeline"]

    def told(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*switchgear, command, "pipelines/publish.toml"], cwd=tmp_path,
            capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
        )  # fmt: skip

    assert fault in told("check").stdout
    path.write_text(file, encoding="utf-8")
    assert told("check").returncode == 0
    assert drawn in told("show").stdout
    with Dev(tmp_path, "publisher:agent") as dev:
        [shown] = re.findall(r"^\$ switchgear (task submit publish .*)$", page, re.MULTILINE)
        done = dev.run(*shlex.split(shown), "--json")
        assert done.code == 0, done.err
        refused = dev.run("task", "submit", "publish", '{"title": "Hello"}', "--wait")
    assert '"said":"hello: success"' in done.out
    assert (refused.code, "SG1203" in refused.err) == (1, True)


def test_the_tests_of_the_how_to_pass(tmp_path: Path) -> None:
    """Each block is a module of tests; all of them are run, and none is missing."""
    blocks = python_blocks(DOCS / "how-to" / "test-an-agent.md")
    for number, code in enumerate(blocks):
        (tmp_path / f"test_block_{number}.py").write_text(code, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "."],
        cwd=tmp_path, capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    written = sum(code.count("async def test_") for code in blocks)
    assert f"{written} passed" in ran.stdout, ran.stdout + ran.stderr
    assert written >= 5


class Weather(BaseHTTPRequestHandler):
    """A service that is down until it is told to be up."""

    up = False

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200 if Weather.up else 503)
        self.end_headers()
        self.wfile.write(b"sunny" if Weather.up else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
        del format, args


def test_the_how_to_of_breakers_works(tmp_path: Path) -> None:
    """The breaker opens, the task uses no attempt and completes when the service is back; orders are recorded."""
    page = DOCS / "how-to" / "breakers.md"
    (agent,) = python_blocks(page)
    shown = re.findall(r"^\$ switchgear (.*)$", page.read_text("utf-8"), re.MULTILINE)
    (tmp_path / "weather.py").write_text(agent, encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Weather)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Dev(tmp_path, "weather:agent") as dev:
            city = json.dumps({"url": f"http://127.0.0.1:{server.server_address[1]}/"})
            task = dev.run("task", "submit", "forecast", city).out.strip()
            [state] = until(
                lambda: dev.run("breaker", "ls", "--troubled", "--json").json["breakers"], "it open"
            )
            assert "3 calls in a row failed" in state["breaker"]["why"]
            Weather.up = True
            assert dev.run("task", "result", task, "--timeout", "50s").json == "sunny"
            events = [
                one["event"] for one in dev.run("task", "show", task, "--json").json["events"]
            ]
            assert ("released" in events, "attempt-failed" in events) == (True, False)
            answers = [dev.run(*shlex.split(line)) for line in shown]
            assert [answer.code for answer in answers] == [0] * len(shown), answers[-1].err
            assert "refuses every call" in answers[1].out
            assert answers[-1].out.index("moved") < answers[-1].out.index("moves to another host")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
