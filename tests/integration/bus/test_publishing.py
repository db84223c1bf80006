"""Appends: exactly one of many racing ones lands, none is left in doubt, nobody poisons anything."""

# Some faults can only be set up, and seen, from inside.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import gc

import pytest

from switchgear.bus.asking import ApiError
from switchgear.bus.connection import NatsBus, Options, connect
from switchgear.bus.port import Appended, Refused
from switchgear.bus.publisher import Outcome
from switchgear.contract import subjects
from switchgear.errors import (
    OutcomeUnknown,
    ProtocolError,
    SwitchgearError,
    Unavailable,
    UsageError,
)
from switchgear.server import EmbeddedServer
from tests.conftest import StartServer
from tests.integration.bus.faults import Cut, until
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration


def append(bus: NatsBus, scope: str, expect: int, body: bytes = b"{}") -> asyncio.Future[Outcome]:
    """A submission in the scope."""
    return bus.ledger.append(
        subjects.task_event(scope, "submitted"), body, scope=scope, expect=expect
    )


async def test_exactly_one_of_twenty_racing_appends_wins(
    nats_server: EmbeddedServer, bus: NatsBus, capability: str
) -> None:
    others = [await connect(nats_server.url) for _ in range(4)]
    for number in range(25):
        scope = subjects.scope(capability, "own", f"t{number}")
        racing = [append(one, scope, 0) for one in (bus, *others) for _ in range(4)]
        outcomes = await asyncio.gather(*racing)
        won = [one for one in outcomes if isinstance(one, Appended)]
        assert len(won) == 1
        assert [Refused(won[0].sequence)] * 19 == [o for o in outcomes if isinstance(o, Refused)]
    for other in others:
        await other.close()


async def test_appends_leave_in_call_order(bus: NatsBus, scope: str) -> None:
    """More than the window takes, each expecting the one before."""
    first = await append(bus, scope, 0)
    assert isinstance(first, Appended)
    calls = [append(bus, scope, first.sequence + number) for number in range(300)]
    outcomes = await asyncio.gather(*calls)
    assert [first.sequence + number + 1 for number in range(300)] == [
        one.sequence for one in outcomes if isinstance(one, Appended)
    ]


async def test_full_window_waits_in_order(nats_server: EmbeddedServer, scope: str) -> None:
    bus = await connect(nats_server.url, options=Options(window=4))
    publisher = bus.link.publisher
    calls = [append(bus, scope, 0)]
    calls += [publisher.publish(scope[:-1] + "x", "NATS/1.0\r\n\r\n", b"") for _ in range(50)]
    assert publisher.unanswered == 51
    assert len(publisher._open) == 4
    sequences = [one.sequence for one in await asyncio.gather(*calls) if isinstance(one, Appended)]
    assert sorted(sequences) == sequences
    assert len(sequences) == 51
    await bus.close()


@pytest.mark.faults
async def test_lost_answer_is_asked_for_again(cut_bus: NatsBus, cut: Cut, scope: str) -> None:
    """The entry is stored, its answer lost: the same bytes go again, and find it stored."""
    cut.deaf = True
    call = append(cut_bus, scope, 0)
    await until(lambda: b"submitted" in cut.sent)
    cut.cut()
    cut.deaf = False
    outcome = await asyncio.wait_for(call, PATIENCE)
    assert cut.sent.count(b"HPUB " + subjects.task_event(scope, "submitted").encode()) == 2
    (stored,) = await cut_bus.ledger.history(scope)
    assert outcome in {Appended(stored.sequence), Refused(stored.sequence)}


@pytest.mark.faults
async def test_swallowed_answer_is_asked_for_again_without_a_reconnect(
    cut_bus: NatsBus, cut: Cut, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchgear.bus.publisher.RESEND_AFTER", 0.05)
    cut.deaf = True
    call = append(cut_bus, scope, 0)
    await until(lambda: cut.sent.count(b"HPUB ") >= 2)
    cut.deaf = False
    outcome = await asyncio.wait_for(call, PATIENCE)
    (stored,) = await cut_bus.ledger.history(scope)
    assert outcome in {Appended(stored.sequence), Refused(stored.sequence)}
    assert cut.connections == 1


@pytest.mark.faults
async def test_appends_across_a_kill_land_once_each(
    own_bus: NatsBus, server: EmbeddedServer, capability: str
) -> None:
    scopes = [subjects.scope(capability, "own", f"t{number}") for number in range(400)]
    calls = [append(own_bus, scope, 0) for scope in scopes[:200]]
    await calls[20]
    server.kill()
    calls += [append(own_bus, scope, 0) for scope in scopes[200:]]
    await server.start()
    outcomes = await asyncio.wait_for(asyncio.gather(*calls), PATIENCE)
    for scope, outcome in zip(scopes, outcomes, strict=True):
        (stored,) = await own_bus.ledger.history(scope)
        assert outcome in {Appended(stored.sequence), Refused(stored.sequence)}
    assert await own_bus.ledger.last_sequence() == 400


async def test_cancelled_callers_poison_nothing(
    nats_server: EmbeddedServer, capability: str
) -> None:
    bus = await connect(nats_server.url, options=Options(window=2))
    for number in range(200):
        scope = subjects.scope(capability, "own", f"t{number}")
        waiting = asyncio.ensure_future(append(bus, scope, 0))
        if number % 3 == 0:
            await asyncio.sleep(0)
        waiting.cancel()
    scope = subjects.scope(capability, "own", "last")
    assert isinstance(await asyncio.wait_for(append(bus, scope, 0), PATIENCE), Appended)
    await until(lambda: bus.link.publisher.unanswered == 0)
    await bus.close()


@pytest.mark.faults
async def test_closing_without_an_answer_is_an_unknown_outcome(
    cut_bus: NatsBus, cut: Cut, capability: str
) -> None:
    cut.deaf = True
    call = append(cut_bus, subjects.scope(capability, "own", "t"), 0)
    await asyncio.wait_for(cut_bus.close(), PATIENCE)
    with pytest.raises(OutcomeUnknown):
        await call
    with pytest.raises(Unavailable):
        await append(cut_bus, subjects.scope(capability, "own", "u"), 0)


@pytest.mark.faults
async def test_unanswered_append_that_nobody_awaits_is_silent(cut_bus: NatsBus, cut: Cut) -> None:
    """Pytest turns a warning about an exception that was never retrieved into a failure."""
    cut.deaf = True
    append(cut_bus, subjects.scope("cap", "own", "t"), 0)
    await cut_bus.close()
    gc.collect()


async def test_full_stream_says_when_to_retry(own_bus: NatsBus, capability: str) -> None:
    config = (await own_bus.link.asking.api("STREAM.INFO.SG_LEDGER"))["config"]
    await own_bus.link.asking.api("STREAM.UPDATE.SG_LEDGER", {**config, "max_bytes": 2000})
    scopes = [subjects.scope(capability, "own", f"t{number}") for number in range(3)]
    await append(own_bus, scopes[0], 0, bytes(1500))
    with pytest.raises(Unavailable) as raised:
        await append(own_bus, scopes[1], 0, bytes(1500))
    assert raised.value.retry_after is not None
    await own_bus.link.asking.api("STREAM.UPDATE.SG_LEDGER", {**config, "max_bytes": 9000})
    assert isinstance(await append(own_bus, scopes[1], 0, bytes(1500)), Appended)


async def test_missing_stream_is_unavailable_in_the_end(
    private_server: StartServer, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchgear.bus.publisher.NOBODY_PATIENCE", 0.3)
    bus = await connect((await private_server()).url)
    with pytest.raises(Unavailable, match="no stream takes"):
        await asyncio.wait_for(append(bus, scope, 0), PATIENCE)
    assert bus.link.publisher.unanswered == 0
    await bus.close()


async def test_append_waits_for_a_stream_that_comes(
    private_server: StartServer, scope: str
) -> None:
    bus = await connect((await private_server()).url)
    call = append(bus, scope, 0)
    await until(lambda: bool(bus.link.publisher._later))
    await bus.ensure_streams()
    assert Appended(1) == await asyncio.wait_for(call, PATIENCE)
    await bus.close()


@pytest.mark.parametrize(
    "subject", ["", "sg.task.a b", "sg.task.x\r\nPUB y 0", "sg.tàsk.x", "sg.task.x\x00"]
)
async def test_unsound_subjects_never_reach_the_wire(bus: NatsBus, subject: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        bus.ledger.append(subject, b"", scope="sg.task.x.>", expect=0)
    assert raised.value.code == "SG1107"


async def test_message_above_the_brokers_limit_is_refused_here(bus: NatsBus, scope: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        append(bus, scope, 0, bytes(1024 * 1024))
    assert raised.value.code == "SG1103"


async def test_forbidden_subject_fails_at_once(private_server: StartServer, scope: str) -> None:
    """JetStream says nothing and nats-py only logs it: it would look like a broker that never answers."""
    settings = """
    accounts { SYS {}, ONE { jetstream: enabled, users: [
      { user: all, password: p },
      { user: few, password: p, permissions: {
          publish: { allow: ["$JS.API.INFO"] }, subscribe: "_I_few.>" } } ] } }
    no_auth_user: all
    system_account: SYS
    """
    server = await private_server(settings=settings)
    everybody = await connect(server.url)
    await everybody.ensure_streams()
    few = await connect(server.url.replace("//", "//few:p@"), principal="few")
    with pytest.raises(UsageError, match="not allowed"):
        await asyncio.wait_for(append(few, scope, 0), PATIENCE)
    with pytest.raises(UsageError, match="not allowed"):
        await asyncio.wait_for(few.ledger.tail(scope), PATIENCE)
    await few.close()
    await everybody.close()


async def test_other_refusals_carry_the_brokers_words(own_bus: NatsBus) -> None:
    with pytest.raises(SwitchgearError, match="JetStream error"):
        await own_bus.link.publisher.publish(
            "sg.task.a.b.c.x", "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n", b""
        )
    with pytest.raises(ApiError):
        await own_bus.link.asking.api("STREAM.INFO.NOPE")
