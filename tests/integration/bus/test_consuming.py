"""Lanes and intakes: nothing lost on cancellation or restart, nobody waits for a timeout to notice."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear.bus import port, pulling
from switchgear.bus.connection import NatsBus, Options, connect
from switchgear.bus.port import Appended
from switchgear.contract import subjects
from switchgear.errors import NotFound, ServerUnfit, Unavailable
from switchgear.server import EmbeddedServer
from tests.integration.bus.faults import Cut, until
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration


def lane_of(capability: str) -> str:
    """The name of the test's lane."""
    return subjects.lane_consumer(capability, "main", "normal")


async def dispatch(bus: NatsBus, capability: str, count: int, start: int = 0) -> None:
    """Store work items, each of a task of its own."""
    calls: list[asyncio.Future[port.Appended | port.Refused]] = []
    for number in range(start, start + count):
        scope = subjects.scope(capability, "own", f"t{number}")
        subject = subjects.dispatched(scope, "main", "normal")
        calls.append(bus.ledger.append(subject, b"{}", scope=scope, expect=0))
    outcomes = await asyncio.gather(*calls)
    assert all(isinstance(one, Appended) for one in outcomes)


async def ensure(bus: NatsBus, capability: str) -> str:
    """Make the lane."""
    await bus.work.ensure_lane(capability, "main", "normal")
    return lane_of(capability)


async def consumer(bus: NatsBus, name: str) -> dict[str, int]:
    """What the server counts."""
    info = await bus.link.asking.api(f"CONSUMER.INFO.SG_LEDGER.{name}")
    return {
        "pending": info["num_pending"],
        "unacked": info["num_ack_pending"],
        "waiting": info["num_waiting"],
    }


async def nobody_waits(bus: NatsBus, name: str) -> None:
    """Wait until no pull stands at the server; it counts a moment later."""
    async with asyncio.timeout(PATIENCE):
        while (await consumer(bus, name))["waiting"]:
            pass


def task_of(delivery: port.Delivery) -> str:
    """Which task it is."""
    return subjects.parse_task(delivery.stored.subject).task


async def test_two_competing_pullers_get_each_once(
    nats_server: EmbeddedServer, bus: NatsBus, capability: str
) -> None:
    lane = await ensure(bus, capability)
    other = await connect(nats_server.url)
    await dispatch(bus, capability, 200)
    got: list[str] = []

    async def work(one: NatsBus) -> None:
        while deliveries := await one.work.fetch(lane, 7):
            for delivery in deliveries:
                assert delivery.deliveries == 1
                got.append(task_of(delivery))
                delivery.ack()

    await asyncio.gather(work(bus), work(other))
    assert sorted(f"t{number}" for number in range(200)) == sorted(got)
    await other.close()


async def test_fetch_finds_no_missing_lane(bus: NatsBus, capability: str) -> None:
    with pytest.raises(NotFound):
        await asyncio.wait_for(bus.work.fetch(lane_of(capability), 1), PATIENCE)


async def test_concurrent_fetches_share_what_is_there(bus: NatsBus, capability: str) -> None:
    lane = await ensure(bus, capability)
    await dispatch(bus, capability, 10)
    found = await asyncio.gather(*[bus.work.fetch(lane, 3) for _ in range(5)])
    assert [len(one) for one in found] == [3, 3, 3, 1, 0]
    assert len({task_of(delivery) for one in found for delivery in one}) == 10


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_fetch_loses_nothing(bus: NatsBus, capability: str, steps: int) -> None:
    """Cancelled some loop steps before or after the messages arrive: they go back at once."""
    lane = await ensure(bus, capability)
    await dispatch(bus, capability, 20)
    for _ in range(5):
        fetching = asyncio.create_task(bus.work.fetch(lane, 4))
        for _ in range(steps):
            await asyncio.sleep(0)
        fetching.cancel()
        await asyncio.wait([fetching])
        if not fetching.cancelled():
            for delivery in fetching.result():
                delivery.nak()
    got: set[str] = set()
    async with asyncio.timeout(PATIENCE):
        while len(got) < 20:
            for delivery in await bus.work.fetch(lane, 20):
                got.add(task_of(delivery))
                delivery.ack()


@pytest.mark.faults
async def test_fetch_over_a_dead_line_is_unavailable(
    cut_bus: NatsBus, cut: Cut, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And at once when the line is cut, instead of after the timeout."""
    monkeypatch.setattr("switchgear.bus.consumer.FETCH_PATIENCE", 3600.0)
    lane = await ensure(cut_bus, capability)
    cut.deaf = True
    fetching = asyncio.create_task(cut_bus.work.fetch(lane, 1))
    await until(lambda: cut.sent.endswith(b'{"batch":1,"no_wait":true}\r\n'))
    cut.cut()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(fetching, PATIENCE)
    cut.deaf = False


async def test_ended_waiting_pulls_have_received_all_that_was_sent(
    bus: NatsBus, capability: str
) -> None:
    """Work keeps coming while the pulls end: what is not received is still there for others."""
    lane = await ensure(bus, capability)
    for round_number in range(20):
        got: list[port.Delivery] = []
        pulls = bus.work.wait([lane], 5, got.append)
        storing = asyncio.create_task(dispatch(bus, capability, 8, round_number * 8))
        for _ in range(round_number):
            await asyncio.sleep(0)
        await pulls.end()
        received = len(got)
        await storing
        for delivery in got:
            delivery.ack()
        rest: set[str] = set()
        async with asyncio.timeout(PATIENCE):
            while len(rest) < 8 - received:
                for delivery in await bus.work.fetch(lane, 8):
                    rest.add(task_of(delivery))
                    delivery.ack()
        assert received == len(got) <= 5
    await nobody_waits(bus, lane)


async def test_cancelled_end_loses_nothing_that_was_sent(bus: NatsBus, capability: str) -> None:
    """The server may hear of the end before it delivers: what it then keeps is there for the next pull."""
    lane = await ensure(bus, capability)
    got: list[port.Delivery] = []
    pulls = bus.work.wait([lane], 3, got.append)
    await dispatch(bus, capability, 3)
    ending = asyncio.create_task(pulls.end())
    await asyncio.sleep(0)
    ending.cancel()
    async with asyncio.timeout(PATIENCE):
        while len(got) < 3:
            got.extend(await bus.work.fetch(lane, 3))
    assert [one.deliveries for one in got] == [1, 1, 1]
    await pulls.end()


async def test_lane_that_gave_its_batch_is_not_pulled_again(bus: NatsBus, capability: str) -> None:
    lane = await ensure(bus, capability)
    got: list[port.Delivery] = []
    pulls = bus.work.wait([lane], 2, got.append)
    await dispatch(bus, capability, 5)
    await until(lambda: len(got) == 2)
    async with asyncio.timeout(PATIENCE):  # the server counts a moment later
        while await consumer(bus, lane) != {"pending": 3, "unacked": 2, "waiting": 0}:
            assert len(got) == 2
    await pulls.end()


async def test_waiting_pull_on_a_lane_that_comes_later_gets_its_work(
    bus: NatsBus, capability: str
) -> None:
    got: list[port.Delivery] = []
    pulls = bus.work.wait([lane_of(capability)], 1, got.append)
    await bus.facts()
    await ensure(bus, capability)
    await dispatch(bus, capability, 1)
    await until(lambda: len(got) == 1)
    await pulls.end()


async def test_expired_pulls_are_renewed(
    bus: NatsBus, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what they are still owed, and no more."""
    monkeypatch.setattr(pulling, "_EXPIRY", '"expires":50000000}')
    lane = await ensure(bus, capability)
    got: list[port.Delivery] = []
    pulls = bus.work.wait([lane], 3, got.append)
    await dispatch(bus, capability, 1)
    await until(lambda: len(got) == 1)
    asked = 0
    ask = bus.link.client.publish_now

    def counting(subject: str, data: bytes, reply: str = "") -> bool:
        nonlocal asked
        asked += "MSG.NEXT" in subject
        return ask(subject, data, reply)

    bus.link.client.publish_now = counting
    await until(lambda: asked >= 3)
    await dispatch(bus, capability, 5, start=1)
    await until(lambda: len(got) == 3)
    async with asyncio.timeout(PATIENCE):
        while (await consumer(bus, lane))["pending"] != 3:
            assert len(got) == 3
    await pulls.end()


async def consumed(
    bus: NatsBus, capability: str, in_flight: int = 20
) -> tuple[str, list[port.Delivery], port.Consuming]:
    """An intake of the capability's submissions, and what it received."""
    name = f"intake-{capability}"
    await bus.work.ensure_intake(name, [f"sg.task.{capability}.*.*.submitted"])
    got: list[port.Delivery] = []
    return name, got, bus.work.consume(name, got.append, in_flight=in_flight)


async def submit(bus: NatsBus, capability: str, count: int, start: int = 0) -> None:
    """Store submissions."""
    calls: list[asyncio.Future[port.Appended | port.Refused]] = []
    for number in range(start, start + count):
        scope = subjects.scope(capability, "own", f"t{number}")
        subject = subjects.task_event(scope, "submitted")
        calls.append(bus.ledger.append(subject, b"{}", scope=scope, expect=0))
    await asyncio.gather(*calls)


async def test_no_more_than_in_flight_are_unsettled(bus: NatsBus, capability: str) -> None:
    name, got, consuming = await consumed(bus, capability, in_flight=10)
    await submit(bus, capability, 100)
    settled = 0
    async with asyncio.timeout(PATIENCE):
        while settled < 100:
            while len(got) == settled:
                await asyncio.sleep(0)
            assert len(got) - settled <= 10
            got[settled].ack()
            settled += 1
    assert len({task_of(delivery) for delivery in got if delivery.deliveries == 1}) == 100
    await consuming.end()
    await nobody_waits(bus, name)


async def test_settled_slots_are_asked_for_in_few_requests(bus: NatsBus, capability: str) -> None:
    name = f"intake-{capability}"
    await bus.work.ensure_intake(name, [f"sg.task.{capability}.*.*.submitted"])
    asked = 0
    ask = bus.link.client.publish_now

    def counting(subject: str, data: bytes, reply: str = "") -> bool:
        nonlocal asked
        asked += "MSG.NEXT" in subject
        return ask(subject, data, reply)

    bus.link.client.publish_now = counting
    received = 0

    def take(delivery: port.Delivery) -> None:
        nonlocal received
        received += 1
        delivery.ack()

    consuming = bus.work.consume(name, take, in_flight=100)
    await submit(bus, capability, 1000)
    await until(lambda: received == 1000)
    assert asked <= 40
    await consuming.end()


@pytest.mark.faults
@pytest.mark.parametrize("gently", [False, True], ids=["kill", "stop"])
async def test_consumption_resumes_after_a_restart(
    own_bus: NatsBus,
    server: EmbeddedServer,
    capability: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    gently: bool,
) -> None:
    """As soon as the connection is back: no missing heartbeat has to tell."""
    monkeypatch.setattr(pulling, "HEARTBEAT", 3600.0)
    _, got, consuming = await consumed(own_bus, capability)
    await submit(own_bus, capability, 5)
    await until(lambda: len(got) == 5)
    for delivery in got:
        delivery.ack()
    await own_bus.facts()
    if gently:
        await server.stop()
    else:
        server.kill()
    await server.start()
    other = await connect(server.url)
    await submit(other, capability, 5, start=5)
    await until(lambda: {f"t{n}" for n in range(10)} <= {task_of(one) for one in got})
    await consuming.end()
    await other.close()


@pytest.mark.faults
async def test_waiting_pulls_resume_after_a_restart(
    own_bus: NatsBus, server: EmbeddedServer, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as the connection is back, too."""
    monkeypatch.setattr(pulling, "HEARTBEAT", 3600.0)
    lane = await ensure(own_bus, capability)
    got: list[port.Delivery] = []
    pulls = own_bus.work.wait([lane], 1, got.append)
    await own_bus.facts()
    server.kill()
    await server.start()
    other = await connect(server.url)
    await dispatch(other, capability, 1)
    await until(lambda: len(got) == 1)
    await pulls.end()
    await other.close()


@pytest.mark.faults
async def test_deleted_intake_is_made_again(bus: NatsBus, capability: str) -> None:
    name, got, consuming = await consumed(bus, capability)
    await submit(bus, capability, 1)
    await until(lambda: len(got) == 1)
    got[0].ack()
    await bus.link.asking.api(f"CONSUMER.DELETE.SG_LEDGER.{name}")
    await submit(bus, capability, 1, start=1)
    await until(lambda: "t1" in {task_of(one) for one in got})
    await consuming.end()


@pytest.mark.faults
async def test_silently_lost_pull_is_noticed_by_its_heartbeats(
    cut_bus: NatsBus, cut: Cut, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answers vanish for a while; no cut, no error."""
    monkeypatch.setattr(pulling, "HEARTBEAT", 0.1)
    monkeypatch.setattr(pulling, "_EXPIRY", '"expires":30000000000,"idle_heartbeat":100000000}')
    _, got, consuming = await consumed(cut_bus, capability)
    cut.deaf = True
    sent = cut.sent.count(b"MSG.NEXT")
    await until(lambda: cut.sent.count(b"MSG.NEXT") > sent)
    cut.deaf = False
    await submit(cut_bus, capability, 1)
    await until(lambda: {"t0"} == {task_of(one) for one in got})
    assert cut.connections == 1
    await consuming.end()


async def test_ended_consumption_gives_back_what_was_on_its_way(
    nats_server: EmbeddedServer, bus: NatsBus, capability: str
) -> None:
    name, _, consuming = await consumed(bus, capability, in_flight=50)
    storing = asyncio.create_task(submit(bus, capability, 50))
    await asyncio.sleep(0)
    await consuming.end()
    await storing
    other = await connect(nats_server.url)
    rest: list[port.Delivery] = []
    again = other.work.consume(name, rest.append, in_flight=100)
    await until(lambda: len({task_of(one) for one in rest}) == 50)
    await again.end()
    await other.close()


async def test_settling_twice_says_one_thing(cut_bus: NatsBus, cut: Cut, capability: str) -> None:
    lane = await ensure(cut_bus, capability)
    await dispatch(cut_bus, capability, 1)
    (delivery,) = await cut_bus.work.fetch(lane, 1)
    delivery.ack()
    delivery.nak()
    delivery.in_progress()
    await cut_bus.facts()
    assert cut.sent.count(b"+ACK") == 1
    assert cut.sent.count(b"-NAK") + cut.sent.count(b"+WPI") == 0


async def test_changed_settings_upgrade_a_lane(
    nats_server: EmbeddedServer, bus: NatsBus, capability: str
) -> None:
    lane = await ensure(bus, capability)
    options = Options(lane_ack_wait=timedelta(seconds=7), max_ack_pending=9)
    other = await connect(nats_server.url, options=options)
    await asyncio.gather(*[ensure(other, capability) for _ in range(5)])
    config = (await bus.link.asking.api(f"CONSUMER.INFO.SG_LEDGER.{lane}"))["config"]
    assert (config["ack_wait"], config["max_ack_pending"]) == (7_000_000_000, 9)
    assert (
        config["max_deliver"],
        config["ack_policy"],
        config["deliver_policy"],
    ) == (-1, "explicit", "all")
    await other.close()


async def test_lane_that_cannot_be_upgraded_is_unfit(bus: NatsBus, capability: str) -> None:
    name = lane_of(capability)
    config = {"name": name, "durable_name": name, "ack_policy": "none", "deliver_policy": "new"}
    await bus.link.asking.api(
        f"CONSUMER.CREATE.SG_LEDGER.{name}", {"stream_name": "SG_LEDGER", "config": config}
    )
    with pytest.raises(ServerUnfit):
        await ensure(bus, capability)
