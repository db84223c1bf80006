"""`switchgear dev`: what it starts, restarts, and leaves behind (nothing)."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from switchgear.server import EmbeddedServer
from tests.e2e.mesh import AGENT, Dev, Place, alive, until
from tests.patience import PATIENCE

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("nats_binary")]


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        pids = dev.pids
        assert set(pids) == {"server", "coordinator", "observe", "hello"}
        assert all(alive(pid) for pid in pids.values())
        assert dev.interrupt() == 0
        assert [name for name, pid in pids.items() if alive(pid)] == []
        assert dev.state == {}
        assert (tmp_path / ".switchgear" / "logs" / "hello.log").exists()
        assert dev.run("task", "ls").code == 5


def test_ctrl_c_hands_back_what_an_agent_holds(tmp_path: Path) -> None:
    """Twice: the first waits for the agent, the second for nobody."""
    with Dev(tmp_path) as dev:
        identity = dev.submit("forever")
        until(lambda: "thinking" in _watched(dev, identity), "the task runs")
        pids = dev.pids
        dev.process.send_signal(signal.SIGINT)
        until(lambda: "stopping" in dev.log, "the first Ctrl-C is heard")
        assert dev.interrupt() == 0
        assert [name for name, pid in pids.items() if alive(pid)] == []


def _watched(dev: Dev, identity: str) -> str:
    """What the agent announces of the task; empty while it does not run there."""
    told = dev.run("agent", "show", "hello", "--json")
    running = [run["task"] for one in told.json["instances"] for run in one.get("running", [])]
    return "thinking" if identity in running else ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_killed_supervisor_leaves_nothing_running(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        pids = dev.pids
        dev.process.kill()
        dev.process.wait()
        until(lambda: not any(alive(pid) for pid in pids.values()), "all have ended")
    again = Place(tmp_path).run("task", "ls")
    assert again.code == 5
    assert "127.0.0.1:4222" in again.err


def test_a_killed_agent_is_restarted_and_takes_tasks(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        first = dev.pids["hello"]
        os.kill(first, signal.SIGKILL)
        second = until(lambda: _other(dev, "hello", first), "the agent is started again")
        assert alive(second)
        assert "hello was ended by SIGKILL; again in 0.5 s" in dev.log
        told = dev.run("task", "submit", "greet", '{"name": "Ada"}', "--wait", "--timeout", "50s")
        assert told.code == 0, told.err
        checks = {one["name"]: one for one in dev.run("doctor", "--json").json["checks"]}
        assert checks["processes"]["verdict"] == "warn"
        assert "hello (1)" in checks["processes"]["found"]


def test_a_killed_server_comes_back_with_what_it_had(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        identity = dev.submit("Ada")
        assert dev.run("task", "result", identity).code == 0
        first = dev.pids["server"]
        os.kill(first, signal.SIGKILL)
        until(lambda: _other(dev, "server", first), "the server is started again")
        assert dev.state["url"] == dev.ready["url"]
        until(lambda: dev.run("task", "result", identity).code == 0, "the ledger is read")
        assert dev.run("task", "submit", "greet", '{"name": "B"}', "--wait").code == 0


def _other(dev: Dev, name: str, former: int) -> int:
    pid = dev.pids.get(name, former)
    return 0 if pid == former else pid


def test_a_drained_agent_stays_away_and_can_come_back(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        told = dev.run("agent", "drain", "hello", "--wait")
        assert told.code == 0, told.err
        assert told.out.endswith("has left\n")
        assert dev.run("agent", "ls").out.startswith("no agents")
        until(lambda: "hello" not in dev.pids, "its process has ended")
        identity = dev.submit("Later")
        mine = dev.start("agent", "run", "hello:agent")
        try:
            result = dev.run("task", "result", identity, "--timeout", "50s")
            assert result.json == {"text": "hello Later"}
        finally:
            mine.send_signal(signal.SIGTERM)
            output, _ = mine.communicate(timeout=PATIENCE)
        assert mine.returncode == 0, output


def test_state_is_kept_unless_it_shall_be_fresh(tmp_path: Path) -> None:
    with Dev(tmp_path) as dev:
        identity = dev.submit("Kept")
        assert dev.run("task", "result", identity).code == 0
    with Dev(tmp_path) as dev:
        assert dev.run("task", "result", identity).json == {"text": "hello Kept"}
        dev.until_listed(identity, "completed")
    with Dev(tmp_path, "hello:agent", "--fresh", "--durability", "durable") as dev:
        assert dev.run("task", "show", identity).code == 3
        assert dev.run("task", "ls").out == "no tasks\n"
        checks = {one["name"]: one for one in dev.run("doctor", "--json").json["checks"]}
        assert checks["sync"]["found"].startswith("always")


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        ("helo:agent", "there is no module helo"),
        ("hello:agnt", "hello has no agent 'agnt'"),
        ("broken:agent", "broken cannot be imported"),
        ("hello.py", "hello.py"),
    ],
)
def test_an_agent_that_cannot_be_loaded_is_told_at_once(
    tmp_path: Path, agent: str, told: str
) -> None:
    place = Place(tmp_path)
    (tmp_path / "hello.py").write_text(AGENT, encoding="utf-8")
    (tmp_path / "broken.py").write_text("def (:\n", encoding="utf-8")
    ran = place.run("dev", agent)
    assert ran.code == 2
    last = ran.err[ran.err.rindex("SG1001: agent") if "SG1001: agent" in ran.err else 0 :]
    assert told in last
    assert "fix: " in last or agent == "broken:agent"
    assert "Traceback" not in last


def test_two_agents_of_one_module_have_names_of_their_own(tmp_path: Path) -> None:
    other = AGENT.replace('"hello"', '"second"').replace('"greet"', '"wave"')
    (tmp_path / "second.py").write_text(other, encoding="utf-8")
    with Dev(tmp_path, "hello:agent", "hello:agent", "second") as dev:
        assert dev.ready["agents"] == ["hello", "hello-2", "second"]
        assert len(dev.run("agent", "ls", "--json").json["instances"]) == 3


def test_a_port_can_be_chosen(tmp_path: Path, unused_tcp_port: int) -> None:
    with Dev(tmp_path, "hello:agent", "--port", str(unused_tcp_port)) as dev:
        assert dev.ready["url"] == f"nats://127.0.0.1:{unused_tcp_port}"


def test_the_ready_line_names_url_and_next_commands(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(AGENT, encoding="utf-8")
    place = Place(tmp_path)
    mesh = place.start("dev", "hello:agent", "--state", "elsewhere")
    try:
        told: list[str] = []
        assert mesh.stdout is not None
        for line in mesh.stdout:
            told.append(line)
            if "Ctrl-C" in line:
                break
    finally:
        mesh.send_signal(signal.SIGINT)
        mesh.communicate(timeout=PATIENCE)
    text = "".join(told)
    assert "switchgear is ready at nats://127.0.0.1:" in text
    assert "export SWITCHGEAR_URL=nats://127.0.0.1:" in text
    assert "switchgear task submit" in text
    assert mesh.returncode == 0


async def test_the_doctor_tells_what_a_bare_broker_lacks(tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with EmbeddedServer(tmp_path / "nats") as server:
        told = place.run("doctor", "--json", "--url", server.url)
        named = place.run("task", "ls", "--url", server.url)
    checks = {one["name"]: one for one in told.json["checks"]}
    assert told.code == 8
    for name in ("coordinator", "read model", "stream SG_LEDGER"):
        assert checks[name]["verdict"] == "fail"
        assert checks[name]["fix"]
    assert "switchgear observe" in checks["read model"]["fix"]
    assert "switchgear coordinator" in checks["coordinator"]["fix"]
    assert checks["sync"]["verdict"] == "warn"
    assert checks["broker"]["verdict"] == "ok"
    assert named.code == 5
    assert "switchgear observe" in named.err


def test_the_doctor_tells_that_there_is_no_broker(tmp_path: Path) -> None:
    told = Place(tmp_path).run("doctor", "--json", "--url", "nats://127.0.0.1:1")
    checks = {one["name"]: one for one in told.json["checks"]}
    assert told.code == 5
    assert checks["broker"]["verdict"] == "fail"
    assert checks["python"]["verdict"] == "ok"


async def test_the_doctor_tells_of_a_stream_that_was_changed(tmp_path: Path) -> None:
    from nats.aio.client import Client

    with Dev(tmp_path) as dev:
        client = Client()
        await client.connect(dev.ready["url"])
        try:
            answer = await client.request("$JS.API.STREAM.INFO.SG_LEDGER", b"", timeout=PATIENCE)
            config = json.loads(answer.data)["config"] | {"max_consumers": -1, "republish": None}
            body = json.dumps({**config, "max_msg_size": 1 << 20}).encode()
            changed = await client.request(
                "$JS.API.STREAM.UPDATE.SG_LEDGER", body, timeout=PATIENCE
            )
            assert "error" not in json.loads(changed.data), changed.data
        finally:
            await client.close()
        told = dev.run("doctor", "--json")
    checks = {one["name"]: one for one in told.json["checks"]}
    assert told.code == 8
    assert checks["stream SG_LEDGER"]["verdict"] == "fail"
    assert "republish" in checks["stream SG_LEDGER"]["found"]
