"""`breaker ls`, `log`, `reset`, `open`, `close`, against a mesh in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from switchgear import Agent, Breaker, Context, NotFound, Retry, UsageError, step
from switchgear.cli import breaker, exits, shell
from switchgear.cli import common as shared
from switchgear.cli.breaker import Order
from switchgear.cli.common import Common
from switchgear.cli.output import Output
from switchgear.cli.render import mesh
from switchgear.cli.render.breakers import breakers
from switchgear.client.mesh import Mesh
from switchgear.contract import codec, subjects
from switchgear.contract.announcement import BreakerState
from switchgear.contract.breaker_orders import (
    BreakerCommand,
    BreakerOrder,
    BreakerOrders,
    BreakerOrdersQuery,
)
from switchgear.coordinator import breaker_orders
from tests.unit.agent.stage import Stage, Text, stage

JSON = Common(json=True)
DOWN = "the engine: is gone"


def caller(name: str = "caller") -> Agent:
    """An agent that calls one dependency, and declares another."""
    agent = Agent(name, version="1.0.0")
    agent.breaker("svc", Breaker(in_a_row=3, open_for=timedelta(minutes=2), jitter=0.0))

    @step(retry=Retry(max_attempts=9, initial=timedelta(0)), breaker="svc")
    async def call(down: str) -> None:
        if down:
            raise OSError(DOWN)

    @agent.capability(f"{name}-call")
    async def handle(value: Text, ctx: Context) -> Text:
        await ctx.step("call", call, value.text)
        return value

    return agent


@pytest.fixture
def given() -> list[Mesh]:
    """The mesh that commands join."""
    return []


@pytest.fixture(autouse=True)
def joined(given: list[Mesh], monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def join(_: Common) -> AsyncGenerator[Mesh]:
        yield given[0]

    def run(work: Any) -> Any:
        return work

    monkeypatch.setattr(shared, "joined", join)
    monkeypatch.setattr(shared, "run", run)


class Said:
    """What a command wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def json(self) -> Any:
        """Its document."""
        return json.loads(self._capsys.readouterr().out)

    def text(self) -> str:
        """Its output for people."""
        return self._capsys.readouterr().out


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.setenv("COLUMNS", "200")
    return Said(capsys)


async def settled(on: Stage, state: str, instances: int = 1) -> None:
    """Wait until so many announce a breaker of `svc` in this state."""
    async with asyncio.timeout(600):
        while True:
            found = [
                one.state
                for instance in (await on.mesh.agents()).instances
                for one in instance.breakers
                if one.dependency == "svc"
            ]
            if found.count(state) == instances:
                return
            await asyncio.sleep(0.1)


async def answered(command: Any) -> int:
    """The exit code of a command that runs on this loop."""
    return await command


async def test_breakers_are_listed_those_that_are_not_closed_first(
    given: list[Mesh], said: Said
) -> None:
    """With rates, and why; narrowed by agent, dependency, or to what needs attention."""
    async with stage(caller(), caller("second")) as on:
        given.append(on.mesh)
        await on.mesh.submit("caller-call", Text("down"))
        await settled(on, "open")
        assert await answered(breaker.ls(common=JSON)) == exits.OK
        first, second = said.json()["breakers"]
        assert first["instance"].startswith("caller")
        assert (first["agent"], second["agent"]) == ("caller", "second")
        assert first["breaker"]["state"] == "open"
        assert (first["breaker"]["failure_rate"], first["breaker"]["calls"]) == (1.0, 3)
        assert "OSError" in first["breaker"]["why"]
        assert DOWN not in first["breaker"]["why"]
        assert second["breaker"]["state"] == "closed"
        await answered(breaker.ls(agent="second", common=JSON))
        assert [one["breaker"]["state"] for one in said.json()["breakers"]] == ["closed"]
        await answered(breaker.ls(troubled=True, dependency="svc", common=Common()))
        text = said.text()
        assert "3 calls in a row failed" in text
        assert "100%" in text
        assert "probes in" in text
        assert "second" not in text
        [shown] = [one for one in (await on.mesh.agents()).instances if one.agent == "caller"]
        Output(as_json=False).put("agent", {}, lambda: mesh.agent(shown, on.site.clock.now()))
        assert "3 calls in a row failed" in said.text()
        await answered(breaker.ls(dependency="nothing", common=Common()))
        assert said.text().startswith("no breakers of nothing")
        await answered(breaker.ls(troubled=True, agent="second", common=Common()))
        assert said.text() == "all breakers are closed (1)\n"
        with pytest.raises(NotFound, match="no agent 'secnd'") as unknown:
            await answered(breaker.ls(agent="secnd", common=Common()))
        assert "did you mean second" in unknown.value.fix


async def test_orders_reach_the_instances_and_stay_on_record(given: list[Mesh], said: Said) -> None:
    """Who gave them, when, to whom and why, the newest first; `ls` shows who holds a breaker."""
    async with stage(caller(), caller("second")) as on:
        given.append(on.mesh)
        await settled(on, "closed", 2)
        assert await answered(breaker.log(common=Common())) == exits.OK
        assert said.text().startswith("nobody")
        order = Order(why="moves tonight")
        code = await answered(breaker.open_("svc", order=order, common=Common()))
        assert (code, said.text().count("is told: svc refuses every call")) == (exits.OK, 2)
        await settled(on, "forced-open", 2)
        await answered(breaker.ls(common=Common()))
        assert said.text().count("held by alice") == 2
        await answered(breaker.reset("svc", order=Order(why="moved", agent="second"), common=JSON))
        order = said.json()["order"]
        assert (order["by"], order["action"], len(order["instances"])) == ("alice", "reset", 1)
        await settled(on, "closed")
        instance = next(
            one.instance for one in (await on.mesh.agents()).instances if one.agent == "caller"
        )
        await answered(
            breaker.close("svc", order=Order(why="let it", instance=instance), common=JSON)
        )
        said.text()
        await settled(on, "disabled")
        await answered(breaker.log(common=JSON))
        orders = said.json()["orders"]
        assert [one["action"] for one in orders] == ["close", "reset", "open"]
        assert [one["why"] for one in orders] == ["let it", "moved", "moves tonight"]
        assert orders[0]["instances"] == [instance]
        await answered(breaker.log(dependency="svc", limit=1, common=Common()))
        text = said.text()
        assert "let it" in text
        assert "moved" not in text
        await answered(breaker.log(dependency="other", common=JSON))
        assert said.json()["orders"] == []


async def test_an_order_for_what_nobody_knows_is_refused_and_not_recorded(
    given: list[Mesh], said: Said
) -> None:
    """Unless it names the agent: its breaker is made by the order."""
    async with stage(caller()) as on:
        given.append(on.mesh)
        await settled(on, "closed")
        with pytest.raises(NotFound, match="no breaker of 'registry:a'"):
            await answered(breaker.open_("registry:a", order=Order(why="x"), common=JSON))
        await answered(breaker.log(common=JSON))
        assert said.json()["orders"] == []
        order = Order(why="x", agent="caller")
        await answered(breaker.open_("registry:a", order=order, common=JSON))
        said.text()
        async with asyncio.timeout(600):
            while not [
                one
                for one in (await on.mesh.agents()).instances[0].breakers
                if (one.dependency, one.state) == ("registry:a", "forced-open")
            ]:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("dependency", "order", "what", "fix"),
    [
        ("svcc", Order(why="x"), "no breaker of 'svcc'", "did you mean svc?"),
        ("svc", Order(why="x", agent="calle"), "no agent 'calle'", "did you mean caller"),
        ("svc", Order(why="x", agent="a b"), "no agent 'a b'", "agent ls"),
        ("svc", Order(why="x", instance="caller"), "no instance 'caller'", "did you mean caller-"),
        ("svc", Order(why="x", instance="*"), "no instance '*'", "agent ls"),
    ],
)
async def test_who_misspells_what_an_order_is_for_is_told_what_there_is(
    given: list[Mesh], dependency: str, order: Order, what: str, fix: str
) -> None:
    """Before anything is recorded."""
    async with stage(caller()) as on:
        given.append(on.mesh)
        await settled(on, "closed")
        with pytest.raises(NotFound) as unknown:
            await answered(breaker.open_(dependency, order=order, common=JSON))
        assert unknown.value.what == what
        assert fix in unknown.value.fix
        orders = await on.mesh.ask("breaker-orders", BreakerOrdersQuery(), BreakerOrders)
        assert orders.orders == ()


async def test_an_instance_of_another_agent_is_told_as_such(given: list[Mesh]) -> None:
    async with stage(caller(), caller("second")) as on:
        given.append(on.mesh)
        await settled(on, "closed", 2)
        instance = next(
            one.instance for one in (await on.mesh.agents()).instances if one.agent == "caller"
        )
        order = Order(why="x", agent="second", instance=instance)
        with pytest.raises(NotFound, match=f"{instance} is no live instance of second"):
            await answered(breaker.open_("svc", order=order, common=JSON))


@pytest.mark.parametrize(
    ("dependency", "why", "what"),
    [
        ("svc", " ", "--why is empty"),
        ("svc", "x" * 5000, "--why has 5000 characters"),
        ("", "x", "DEPENDENCY is empty"),
        ("x" * 200, "x", "DEPENDENCY has 200 characters"),
    ],
)
async def test_an_order_that_says_too_little_or_too_much_is_refused_before_a_mesh_is_asked(
    dependency: str, why: str, what: str
) -> None:
    with pytest.raises(UsageError) as wrong:
        await answered(breaker.open_(dependency, order=Order(why=why), common=JSON))
    assert wrong.value.what == what


@pytest.mark.parametrize("limit", [0, 501])
async def test_no_more_orders_are_listed_than_are_kept(limit: int) -> None:
    with pytest.raises(UsageError, match=f"--limit is {limit}"):
        await answered(breaker.log(limit=limit, common=JSON))


async def test_an_order_is_refused_by_who_keeps_it_too() -> None:
    """Another program may send one: nothing is kept of what nobody could be told."""
    async with stage(caller()) as on:
        await settled(on, "closed")
        for command, what in (
            (BreakerCommand(dependency="a", action="open", why="x"), "has a breaker of a"),
            (
                BreakerCommand(dependency="a", action="open", why="x", agent="b"),
                "no live instance of b",
            ),
            (
                BreakerCommand(dependency="a", action="open", why="x", instance="b"),
                "b is no live instance",
            ),
        ):
            with pytest.raises(NotFound, match=what):
                await on.mesh.ask("breaker", command, BreakerOrder)
        orders = await on.mesh.ask("breaker-orders", BreakerOrdersQuery(), BreakerOrders)
        assert orders.orders == ()


async def test_the_oldest_orders_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that cannot be read hides no other."""
    monkeypatch.setattr(breaker_orders, "KEPT", 3)
    async with stage(caller()) as on:
        await settled(on, "closed")
        for number in range(5):
            command = BreakerCommand(dependency="svc", action="reset", why=str(number))
            await on.mesh.ask("breaker", command, BreakerOrder)
        found = await on.mesh.ask("breaker-orders", BreakerOrdersQuery(), BreakerOrders)
        assert [one.why for one in found.orders] == ["4", "3", "2"]
        await on.bus.documents.put(subjects.breaker_order("zz"), codec.encode({"v": 9}))
        found = await on.mesh.ask("breaker-orders", BreakerOrdersQuery(), BreakerOrders)
        assert len(found.orders) == 3


@pytest.mark.parametrize("action", ["open", "close", "reset"])
def test_an_order_needs_a_reason_and_a_dependency(
    action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line asks for them, and its help tells what each option means."""
    assert shell.run(["breaker", action, "svc"]) == exits.USAGE
    assert "--why" in capsys.readouterr().err
    assert shell.run(["breaker", action, "--why", "x"]) == exits.USAGE
    assert "DEPENDENCY" in capsys.readouterr().err
    assert shell.run(["breaker", action, "--help"]) == exits.OK
    shown = capsys.readouterr().out
    for part in ("--why", "[required]", "Only of this instance", "--url"):
        assert part in shown


def test_the_screen_shows_calls_that_go_on_and_wait(said: Said) -> None:
    now = datetime(2026, 3, 2, 12, tzinfo=UTC)
    state = BreakerState(dependency="db", state="closed", since=now, busy=3, waiting=12)
    shown = Output(as_json=False)
    shown.put("breaker-list", {}, lambda: breakers([("one", state)], now, "none"))
    text = said.text()
    assert "BUSY" in text
    assert "3 +12" in text
