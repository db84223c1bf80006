"""The embedded server: found, started, killed, restarted, and never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nats.errors
import pytest
from nats.aio.client import Client

from switchgear import errors
from switchgear.server import EmbeddedServer, binary, find_binary
from tests.patience import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("nats_binary")]

StartServer = Callable[..., Awaitable[EmbeddedServer]]


def varz(server: EmbeddedServer) -> dict[str, Any]:
    """What the server says about its own settings."""
    with urlopen(f"{server.monitoring_url}/varz", timeout=PATIENCE) as answer:
        return json.load(answer)


def alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    async with asyncio.timeout(PATIENCE):
        while alive(pid):
            await asyncio.sleep(0.01)


async def connect(server: EmbeddedServer, name: str = "test") -> Any:
    """A bare connection; nats-py is only partly typed, so nothing is claimed about it."""
    client: Any = Client()
    await client.connect(server.url, name=name, allow_reconnect=False)
    return client


async def test_a_started_server_takes_connections_and_offers_jetstream(
    nats_server: EmbeddedServer,
) -> None:
    connection = await connect(nats_server)
    try:
        info = await connection.jetstream().account_info()
        assert info.streams >= 0
        assert nats_server.url.startswith("nats://127.0.0.1:")
    finally:
        await connection.close()


async def test_the_reference_configuration_is_in_force(nats_server: EmbeddedServer) -> None:
    settings = varz(nats_server)
    assert settings["host"] == "127.0.0.1"
    assert settings["max_payload"] == 1024 * 1024
    assert settings["max_control_line"] == 16 * 1024
    assert settings["system_account"] == "SYS"
    assert settings["jetstream"]["config"]["sync_interval"] == 120 * 10**9


async def test_the_durable_profile_syncs_always(private_server: StartServer) -> None:
    server = await private_server(durability="durable")
    assert varz(server)["jetstream"]["config"]["sync_always"] is True


async def test_settings_overrule_the_reference_configuration(private_server: StartServer) -> None:
    server = await private_server(settings="max_connections: 7")
    assert varz(server)["max_connections"] == 7


async def test_the_end_of_a_connection_is_announced_inside_the_mesh(
    private_server: StartServer,
) -> None:
    server = await private_server()
    watcher = await connect(server)
    events = await watcher.subscribe("sg.broker.disconnect")
    await watcher.flush()
    dying = await connect(server, "agent-7")
    await dying.close()
    event = json.loads((await events.next_msg(timeout=PATIENCE)).data)
    assert event["client"]["name"] == "agent-7"
    assert event["client"]["acc"] == "MESH"
    await watcher.close()


@pytest.mark.faults
async def test_acknowledged_entries_survive_a_kill_at_the_same_address(
    private_server: StartServer,
) -> None:
    server = await private_server()
    url, pid = server.url, server.pid
    connection = await connect(server)
    stream = connection.jetstream()
    await stream.add_stream(name="KEPT", subjects=["kept.>"])
    await stream.publish("kept.one", b"1")

    with suppress(nats.errors.Error):
        server.kill()
        await connection.close()
    assert not server.running
    assert not alive(pid)
    await server.restart()

    assert server.url == url
    assert server.pid != pid
    connection = await connect(server)
    kept = await connection.jetstream().stream_info("KEPT")
    assert kept.state.messages == 1
    await connection.close()


async def test_a_running_server_restarts_in_order_and_starts_only_once(
    private_server: StartServer,
) -> None:
    server = await private_server()
    url, pid = server.url, server.pid
    with pytest.raises(errors.ServerFailed, match="runs already"):
        await server.start()
    await server.restart()
    assert (server.url, server.running) == (url, True)
    assert not alive(pid)
    await server.stop()
    with pytest.raises(errors.ServerFailed, match="does not run"):
        _ = server.pid


async def test_two_servers_never_share_a_store(private_server: StartServer) -> None:
    server = await private_server()
    with pytest.raises(errors.ServerFailed, match="in use by another server"):
        await EmbeddedServer(server.store_dir).start()
    assert server.running


async def test_a_stopped_server_leaves_streams_and_log_and_nothing_else(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "store")
    await server.start()
    pid = server.pid
    await server.stop()
    await server.stop()
    assert not alive(pid)
    left = {path.name for path in (tmp_path / "store").iterdir()}
    assert left == {"jetstream", "server.lock", "server.log"}


async def test_a_temporary_store_goes_with_its_server() -> None:
    async with EmbeddedServer() as server:
        place = server.store_dir
        assert place.is_dir()
    assert not place.exists()


async def test_a_faulty_setting_is_reported_in_the_servers_own_words(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, settings="no_such_setting: 1")
    with pytest.raises(errors.ServerFailed, match='unknown field "no_such_setting"'):
        await server.start()
    assert not server.running


async def test_a_taken_port_is_an_error(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    taken = int(nats_server.url.rpartition(":")[2])
    with pytest.raises(errors.ServerFailed, match="address already in use"):
        await EmbeddedServer(tmp_path, port=taken).start()


async def test_a_cancelled_start_leaves_no_server(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    start = asyncio.create_task(server.start())
    async with asyncio.timeout(PATIENCE):
        while not server.running:
            await asyncio.sleep(0)
    pid = server.pid
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not alive(pid)


OWNER = """
import asyncio, sys
from pathlib import Path
from switchgear.server import EmbeddedServer

async def own():
    async with EmbeddedServer(Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(own())
"""


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_server_dies_with_a_killed_owner_and_frees_its_store(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        pid = int(await asyncio.wait_for(owner.stdout.readline(), PATIENCE))
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        await owner.communicate()
    await gone(pid)
    async with EmbeddedServer(tmp_path) as server:
        assert server.running


def test_an_explicit_binary_goes_first(tmp_path: Path) -> None:
    chosen = tmp_path / "my-nats"
    chosen.touch(mode=0o755)
    assert find_binary({"NATS_SERVER_BIN": str(chosen), "PATH": os.defpath}) == chosen


def test_an_explicit_binary_that_cannot_run_is_never_passed_over(tmp_path: Path) -> None:
    with pytest.raises(errors.ServerMissing, match="not an executable file"):
        find_binary({"NATS_SERVER_BIN": str(tmp_path / "missing")})


def test_the_binary_on_path_goes_before_the_packaged_one(tmp_path: Path) -> None:
    on_path = tmp_path / "nats-server"
    on_path.touch(mode=0o755)
    assert find_binary({"PATH": str(tmp_path)}) == on_path


def test_the_packaged_binary_is_found_without_an_activated_environment() -> None:
    assert find_binary({"PATH": ""}).is_file()


def test_a_missing_server_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "DISTRIBUTION", "no-such-distribution")
    with pytest.raises(errors.ServerMissing, match=r"switchgear\[server\]"):
        find_binary({"PATH": ""})
