"""A client and an agent in another language, written from schemas/ and docs/reference/protocol.md."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from switchgear import errors
from switchgear.agent.declare import Agent
from switchgear.agent.worker import Worker
from switchgear.bus.connection import NatsBus, connect
from switchgear.client.mesh import Mesh
from switchgear.contract import subjects
from switchgear.contract.capability import Capability
from switchgear.contract.queries import ExplainQuery, Explanation
from switchgear.coordinator.service import Coordinator
from switchgear.lifecycle.history import fold
from switchgear.server import EmbeddedServer
from tests.node.program import require_node
from tests.patience import PATIENCE

pytestmark = [pytest.mark.node, pytest.mark.integration]

HERE = Path(__file__).parent
SOON = timedelta(seconds=PATIENCE)
OWNER = "ana"
UPPER = Capability("node-upper", str, str)

StartServer = Callable[..., Awaitable[EmbeddedServer]]


class Running(NamedTuple):
    """A server with a coordinator, and a client on it."""

    url: str
    mesh: Mesh
    bus: NatsBus


class Program:
    """A running Node program."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def give(self, text: str) -> None:
        """Its whole input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        await self._process.stdin.drain()
        self._process.stdin.close()

    async def line(self) -> str:
        """Its next line of output."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line, await self.complaint()
        return line.decode().strip()

    async def complaint(self) -> str:
        """What it wrote to standard error, after its end."""
        _, said = await asyncio.wait_for(self._process.communicate(), PATIENCE)
        return said.decode()

    def tell(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        return await asyncio.wait_for(self._process.wait(), PATIENCE)


@asynccontextmanager
async def program(name: str, *arguments: str) -> AsyncGenerator[Program]:
    """A Node program of this folder; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        str(node()), str(HERE / name), *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=2**20
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def node() -> Path:
    return require_node("@nats-io/transport-node", "@nats-io/jetstream", "ajv", "ajv-formats")


@pytest_asyncio.fixture
async def running(private_server: StartServer) -> AsyncIterator[Running]:
    """A server of its own with one coordinator."""
    node()
    server = await private_server()
    async with AsyncExitStack() as stack:
        coordinating = await connect(server.url, name="coordinator", principal="coordinator")
        stack.push_async_callback(coordinating.close)
        coordinator = Coordinator(coordinating)
        await coordinator.start()
        stack.push_async_callback(coordinator.stop)
        bus = await connect(server.url, name="client", principal=OWNER)
        mesh = Mesh(bus, OWNER)
        await mesh.start()
        stack.push_async_callback(mesh.close)
        yield Running(server.url, mesh, bus)


def greeter() -> Agent:
    """An agent in Python: greets, or fails."""
    agent = Agent("greeter", version="1.0.0")

    @agent.capability("greet")
    async def greet(name: str, ctx: object) -> str:
        if name == "nobody":
            raise errors.Permanent("nobody is not greeted")
        return f"hello {name}"

    return agent


@asynccontextmanager
async def serving(url: str, agent: Agent) -> AsyncGenerator[Worker]:
    bus = await connect(url, name=agent.name, principal=agent.name)
    worker = Worker(agent, bus)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
        await bus.close()


async def submitted(url: str, capability: str, value: Any, task: str = "t1") -> tuple[int, Any]:
    """Exit code and output of the Node client."""
    async with program("submit.mjs", url, OWNER, capability, task) as client:
        await client.give(json.dumps(value))
        said = json.loads(await client.line())
        return await client.ended(), said


def test_the_other_fold_agrees_with_the_published_histories() -> None:
    done = subprocess.run(
        [str(node()), str(HERE / "fold-histories.mjs")],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout.splitlines()[-1].endswith(" histories")
    assert done.stdout.splitlines()[:-1] == []


async def test_a_node_client_gets_the_result_of_a_python_agent(running: Running) -> None:
    async with serving(running.url, greeter()):
        code, said = await submitted(running.url, "greet", "ada")
    assert (code, said["state"], said["output"]) == (0, "completed", "hello ada")
    assert said["voids"] == []


async def test_a_node_client_that_asks_twice_gets_the_same_task(running: Running) -> None:
    async with serving(running.url, greeter()):
        first = await submitted(running.url, "greet", "ada", "same")
        second = await submitted(running.url, "greet", "ada", "same")
    assert first == second
    scope = subjects.scope("greet", OWNER, "same")
    events = [one.subject.split(".")[5] for one in await running.bus.ledger.history(scope)]
    assert events == ["submitted", "dispatched", "completed"]


async def test_a_node_client_hears_of_a_failure_and_of_a_rejection(running: Running) -> None:
    async with serving(running.url, greeter()):
        code, said = await submitted(running.url, "greet", "nobody", "dead")
        assert (code, said["state"], said["error"]["code"]) == (1, "dead", "SG1501")
        code, said = await submitted(running.url, "greet", 7, "misfit")
        assert (code, said["state"], said["error"]["code"]) == (1, "rejected", "SG1203")


async def test_a_node_client_is_not_deceived_by_a_forged_result(running: Running) -> None:
    """A result without compare-and-set stands in the ledger before any agent is there."""
    scope = subjects.scope("greet", OWNER, "forged")
    asking = asyncio.create_task(submitted(running.url, "greet", "ada", "forged"))
    async with asyncio.timeout(PATIENCE):
        while not (stored := await running.bus.ledger.history(scope)):
            await asyncio.sleep(0.02)
    forged = json.loads(stored[0].data) | {"hold": 1, "output": "hello mallory", "id": "forged"}
    running.bus.core.publish(f"{scope[:-1]}completed", json.dumps(forged).encode())
    async with asyncio.timeout(PATIENCE):
        while not (await running.bus.ledger.history(scope))[-1].subject.endswith("completed"):
            await asyncio.sleep(0.02)
    async with serving(running.url, greeter()):
        code, said = await asking
    assert (code, said["output"]) == (0, "hello ada")
    assert [void["reason"] for void in said["voids"]] == ["its headers prove nothing"]


@asynccontextmanager
async def node_agent(url: str) -> AsyncGenerator[Program]:
    async with program("serve.mjs", url) as agent:
        assert await agent.line() == "ready"
        yield agent


async def test_a_python_client_gets_the_result_of_a_node_agent(running: Running) -> None:
    async with node_agent(running.url):
        handle = await running.mesh.submit(UPPER, "straße", require_agent=True)
        assert await handle.result(timeout=SOON) == "STRASSE"
        explained = await running.mesh.ask("explain", ExplainQuery(task=handle.id), Explanation)
    assert (explained.state, explained.voids) == ("completed", ())


async def test_payloads_beyond_the_inline_limit_travel_as_blobs_both_ways(running: Running) -> None:
    text = "ab" * 200_000
    async with node_agent(running.url):
        assert await running.mesh.call(UPPER, text, timeout=SOON) == "AB" * 200_000
        code, said = await submitted(running.url, "node-upper", text)
    assert (code, said["output"]) == (0, "AB" * 200_000)


async def test_a_node_agent_serves_many_tasks_of_all_priorities(running: Running) -> None:
    async with node_agent(running.url):
        handles = [
            await running.mesh.submit(UPPER, f"task {number}", priority=priority)
            for number, priority in enumerate(["high", "normal", "low"] * 7)
        ]
        results = [await one.result(timeout=SOON) for one in handles]
    assert results == [f"TASK {number}" for number in range(21)]


async def test_a_node_agent_refuses_input_of_another_type_for_good(running: Running) -> None:
    """Rejected at admission; what slips past an older schema is failed by the agent itself."""
    async with node_agent(running.url):
        handle = await running.mesh.submit("node-upper", {"text": 1})
        with pytest.raises(errors.TaskRejected, match="SG1203"):
            await handle.result(timeout=SOON)


async def test_a_node_agent_drains_on_sigterm_and_leaves_the_registry(running: Running) -> None:
    async with node_agent(running.url) as agent:
        handle = await running.mesh.submit(UPPER, "sleep 1")
        assert await agent.line() == f"begun {handle.id}"
        agent.tell(signal.SIGTERM)
        assert await handle.result(timeout=SOON) == "SLEEP 1"
        assert await agent.ended() == 0


async def test_a_node_agent_obeys_the_order_to_drain(running: Running) -> None:
    async with node_agent(running.url) as agent:
        told = await running.mesh.drain("node-agent")
        assert len(told.instances) == 1
        assert await agent.ended() == 0


async def test_a_task_of_a_killed_node_agent_is_taken_over(private_server: StartServer) -> None:
    """With a lease of 1 s: the next instance appends `taken-over` and the task still ends once."""
    node()
    server = await private_server()
    async with AsyncExitStack() as stack:
        bus = await connect(
            server.url, name="coordinator", principal="c", lane_ack_wait=timedelta(seconds=1)
        )
        stack.push_async_callback(bus.close)
        coordinator = Coordinator(bus)
        await coordinator.start()
        stack.push_async_callback(coordinator.stop)
        client = await connect(server.url, name="client", principal=OWNER)
        mesh = Mesh(client, OWNER)
        await mesh.start()
        stack.push_async_callback(mesh.close)
        first = await stack.enter_async_context(node_agent(server.url))
        handle = await mesh.submit(UPPER, "sleep 3")
        scope = subjects.scope("node-upper", OWNER, handle.id)
        assert await first.line() == f"begun {handle.id}"
        first.tell(signal.SIGKILL)
        await stack.enter_async_context(node_agent(server.url))
        assert await handle.result(timeout=SOON) == "SLEEP 3"
        history = fold(scope, await client.ledger.history(scope))
    events = [valid.subject.event for valid in history.valid]
    assert events == ["submitted", "dispatched", "taken-over", "completed"]
    assert history.voids == []


async def test_a_cancelled_task_of_a_node_agent_ends_as_cancelled(running: Running) -> None:
    async with node_agent(running.url) as agent:
        handle = await running.mesh.submit(UPPER, f"sleep {PATIENCE}", key="cancel-me")
        scope = subjects.scope("node-upper", OWNER, handle.id)
        assert await agent.line() == f"begun {handle.id}"
        stored = await running.bus.ledger.history(scope)
        body = json.loads(stored[0].data)
        asked = {key: body[key] for key in ("v", "task", "time", "writer", "status")}
        await running.bus.ledger.append(
            f"{scope[:-1]}cancel-requested",
            json.dumps(asked | {"id": "c1", "reason": "changed my mind"}).encode(),
            scope=scope,
            expect=stored[-1].sequence,
        )
        with pytest.raises(errors.TaskCancelled, match="changed my mind"):
            await handle.result(timeout=SOON)
        history = fold(scope, await running.bus.ledger.history(scope))
    assert history.end is not None
    assert history.end.writer.startswith("node-agent-")
