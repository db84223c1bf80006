"""Streams: made by whoever comes first, upgraded, and refused where their rules cannot be had."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from switchgear.bus.connection import NatsBus, Options, connect
from switchgear.bus.streams import StreamSettings
from switchgear.errors import ServerUnfit, Unavailable
from switchgear.server import EmbeddedServer
from tests.conftest import StartServer

pytestmark = pytest.mark.integration

MIB = 1024 * 1024


async def config_of(bus: NatsBus, stream: str) -> dict[str, Any]:
    """The stream's settings, as the server has them."""
    return (await bus.link.asking.api(f"STREAM.INFO.{stream}"))["config"]


async def test_streams_have_the_settings_of_the_protocol(own_bus: NatsBus) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "SG_LEDGER": {
            "subjects": ["sg.task.>"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "allow_direct": True,
            "republish": {"src": "sg.task.>", "dest": "sg.live.>"},
            "allow_rollup_hdrs": False,
            "allow_msg_ttl": False,
        },
        "SG_TIMERS": {
            "subjects": ["sg.timer.>", "sg.due.>"],
            "storage": "file",
            "retention": "workqueue",
            "allow_msg_schedules": True,
        },
        "SG_REGISTRY": {
            "subjects": ["sg.announce.>"],
            "max_msgs_per_subject": 1,
            "allow_msg_ttl": True,
            "subject_delete_marker_ttl": 60 * 10**9,
        },
        "SG_PROGRESS": {
            "subjects": ["sg.progress.>", "sg.crash.>"],
            "storage": "memory",
            "max_msgs_per_subject": 1,
            "max_age": 3600 * 10**9,
        },
        "SG_CONFIG": {
            "subjects": ["sg.config.>"],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "max_bytes": -1,
            "allow_direct": True,
            "allow_msg_ttl": True,
        },
        "SG_TOPICS": {
            "subjects": ["sg.topic.>"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_bytes": 1024 * MIB,
            "max_age": 7 * 86_400 * 10**9,
            "allow_msg_ttl": True,
            "duplicate_window": 120 * 10**9,
        },
        "OBJ_SG_BLOBS": {"storage": "file", "allow_rollup_hdrs": True, "discard": "new"},
    }
    for stream, settings in wanted.items():
        config = await config_of(own_bus, stream)
        assert settings == {field: config.get(field) for field in settings}
    ledger = await config_of(own_bus, "SG_LEDGER")
    assert not ledger.get("allow_msg_schedules")
    assert not ledger.get("allow_atomic")
    assert ledger["max_bytes"] > 0


async def test_many_replicas_at_once_make_one_set_of_streams(private_server: StartServer) -> None:
    url = (await private_server()).url
    buses = [await connect(url) for _ in range(6)]
    await asyncio.gather(*[bus.ensure_streams() for bus in buses])
    info = await buses[0].link.asking.api("INFO")
    assert info["streams"] == 7
    for bus in buses:
        await bus.close()


async def test_streams_are_upgraded_and_room_is_never_taken_back(
    private_server: StartServer,
) -> None:
    url = (await private_server()).url
    small = await connect(url, options=Options(streams=StreamSettings(ledger_bytes=10 * MIB)))
    await small.ensure_streams()
    config = await config_of(small, "SG_LEDGER")
    changed = {**config, "allow_rollup_hdrs": True, "republish": None, "description": "mine"}
    await small.link.asking.api("STREAM.UPDATE.SG_LEDGER", changed)
    large = await connect(url, options=Options(streams=StreamSettings(ledger_bytes=20 * MIB)))
    await large.ensure_streams()
    await small.ensure_streams()
    upgraded = await config_of(small, "SG_LEDGER")
    assert {**config, "max_bytes": 20 * MIB, "description": "mine"} == {
        **upgraded,
        "metadata": config["metadata"],
    }
    await small.close()
    await large.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "SG_LEDGER", "subjects": ["sg.task.>"], "storage": "memory"},
        {"name": "SG_LEDGER", "subjects": ["sg.task.>"], "allow_msg_ttl": True},
        {"name": "SG_TIMERS", "subjects": ["sg.timer.>", "sg.due.>"], "retention": "limits"},
        {"name": "OTHER", "subjects": ["sg.>"]},
    ],
    ids=["memory", "message TTL", "retention", "taken subjects"],
)
async def test_stream_with_other_rules_is_refused(
    server: EmbeddedServer, wrong: dict[str, Any]
) -> None:
    bus = await connect(server.url)
    await bus.link.asking.api(f"STREAM.CREATE.{wrong['name']}", wrong)
    with pytest.raises(ServerUnfit) as raised:
        await bus.ensure_streams()
    assert raised.value.fix
    await bus.close()


async def test_store_without_room_is_unfit(private_server: StartServer) -> None:
    bus = await connect((await private_server(settings="jetstream { max_file_store: 1MB }")).url)
    with pytest.raises(ServerUnfit, match="no room"):
        await bus.ensure_streams()
    await bus.close()


async def test_a_broker_without_a_ledger_is_told_as_one_that_waits_for_a_coordinator(
    server: EmbeddedServer,
) -> None:
    """Services that start before the first coordinator say what they wait for."""
    bus = await connect(server.url)
    try:
        for asked in (bus.ledger.last_sequence, bus.ledger.first_sequence, bus.ledger.room):
            with pytest.raises(Unavailable, match="no coordinator has made one"):
                await asked()
    finally:
        await bus.close()
