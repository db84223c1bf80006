"""Connecting: fast refusals, no silent clear text, and a connection that always comes back."""

# Some faults can only be set up, and seen, from inside.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import msgspec.structs
import pytest

from switchgear.bus.connection import ALLOW_CLEAR_TEXT, NatsBus, Options, connect
from switchgear.errors import ClearTextRefused, ConfigError, ServerUnfit, Unavailable
from switchgear.server import EmbeddedServer
from tests.conftest import StartServer
from tests.integration.bus.faults import Cut, Script, until
from tests.patience import PATIENCE

pytestmark = pytest.mark.integration

SOON = Options(connect_timeout=timedelta(seconds=0.3))
LATE = Options(connect_timeout=timedelta(hours=1))
"""Whoever waits for it has failed."""


async def test_refused_port_fails_at_once_and_names_the_url() -> None:
    async with Script() as gone:
        url = gone.url
    with pytest.raises(Unavailable) as raised:
        await asyncio.wait_for(connect(url, options=LATE), PATIENCE)
    assert url in str(raised.value)
    assert "switchgear dev" in raised.value.fix


async def test_silent_server_fails_within_the_timeout() -> None:
    async with Script() as silent:
        silent.on_line = lambda _line, _writer: None
        with pytest.raises(Unavailable, match=r"0\.3 s"):
            await asyncio.wait_for(connect(silent.url, options=SOON), PATIENCE)


async def test_refused_credentials_fail_at_once() -> None:
    """nats-py alone would retry for two minutes, or for ever."""

    def refuse(line: bytes, writer: asyncio.StreamWriter) -> None:
        if line.startswith(b"PING"):
            writer.write(b"-ERR 'Authorization Violation'\r\n")

    async with Script(auth_required=True) as server:
        server.on_line = refuse
        with pytest.raises(Unavailable, match="credentials"):
            await asyncio.wait_for(
                connect(server.url, options=msgspec.structs.replace(LATE, token=lambda: "x")),
                PATIENCE,
            )


async def test_password_stands_in_no_error() -> None:
    with pytest.raises(Unavailable) as raised:
        await connect("nats://user:hidden@127.0.0.1:1")
    assert "hidden" not in f"{raised.value}{raised.value.fix}"


@pytest.mark.parametrize("url", ["http://127.0.0.1:4222", "nats://", "nats://a:b:c", "ws://x"])
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        await connect(url)


@pytest.mark.parametrize("url", ["nats://10.1.2.3:4222", "nats://127.0.0.1:1,nats://example.org"])
async def test_clear_text_beyond_loopback_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALLOW_CLEAR_TEXT, raising=False)
    with pytest.raises(ClearTextRefused):
        await connect(url)


async def test_clear_text_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the attempt is made, and fails as any other."""
    monkeypatch.setenv(ALLOW_CLEAR_TEXT, "1")
    with pytest.raises(Unavailable):
        await connect("nats://192.0.2.1:4222", options=SOON)


async def test_tls_url_sends_nothing_in_clear_to_a_plain_server() -> None:
    """nats-py alone would carry on in clear text, token included."""
    async with Script() as plain:
        with pytest.raises(Unavailable):
            await connect(
                plain.url.replace("nats://", "tls://"), options=Options(token=lambda: "secret")
            )
        assert plain.connects == 0
        assert not any(b"secret" in line for line in plain.lines)


async def test_encrypted_connection_comes_back_too(
    private_server: StartServer, tmp_path: Path
) -> None:
    """Only with the certificate's authority known; after a restart as before."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221 - some milliseconds
    settings = f'tls {{ cert_file: "{certificate}", key_file: "{key}", handshake_first: true }}'
    server = await private_server(settings=settings)
    url = server.url.replace("nats://", "tls://")
    with pytest.raises(Unavailable):
        await connect(url)
    bus = await connect(url, options=Options(tls=ssl.create_default_context(cafile=certificate)))
    await bus.ensure_streams()
    back = asyncio.Event()
    bus.on_reconnect(back.set)
    server.kill()
    await server.start()
    await asyncio.wait_for(back.wait(), PATIENCE)
    assert await bus.ledger.last_sequence() == 0
    await bus.close()


async def test_advertised_servers_beyond_loopback_are_ignored() -> None:
    """They would be reached in clear text at the next reconnect."""
    async with Script(connect_urls=["10.9.9.9:4222", "127.0.0.1:9"]) as server:
        bus = await connect(server.url)
        hosts = [one.uri.hostname for one in bus.link.client._server_pool]
        assert hosts == ["127.0.0.1", "127.0.0.1"]
        await bus.close()


@pytest.mark.parametrize("version", ["2.12.5", "2.9.0", "", "x"])
async def test_old_servers_are_unfit(version: str) -> None:
    async with Script(version=version) as server:
        with pytest.raises(ServerUnfit):
            await connect(server.url)


async def test_server_without_jetstream_is_unfit() -> None:
    async with Script(jetstream=False) as server:
        with pytest.raises(ServerUnfit, match="JetStream"):
            await asyncio.wait_for(connect(server.url), PATIENCE)


async def test_two_connections_of_one_name_are_two_writers(nats_server: EmbeddedServer) -> None:
    one = await connect(nats_server.url, name="worker")
    two = await connect(nats_server.url, name="worker")
    assert one.name != two.name
    assert one.name.startswith("worker-")
    await one.close()
    await two.close()


async def test_expired_session_comes_back() -> None:
    """nats-py alone closes for good on 'User Authentication Expired' (nats.py #1019)."""
    async with Script() as server:
        bus = await connect(server.url, options=Options(token=lambda: "token"))
        back = asyncio.Event()
        bus.on_reconnect(back.set)
        server.writers[-1].write(b"-ERR 'User Authentication Expired'\r\n")
        await asyncio.wait_for(back.wait(), PATIENCE)
        assert server.connects == 2
        await bus.close()


async def test_errors_that_do_not_end_the_session_keep_it() -> None:
    async with Script() as server:
        bus = await connect(server.url)
        server.writers[-1].write(b"-ERR 'Permissions Violation for Subscription to \"x\"'\r\n")
        assert (await bus.facts()).jetstream
        assert server.connects == 1
        await bus.close()


async def test_fresh_token_is_asked_for_at_each_connect() -> None:
    """What the callable raises, of whatever type, ends no reconnection."""
    asked: list[int] = []

    def token() -> str:
        asked.append(1)
        if len(asked) == 2:
            raise OSError("the token cannot be read now")
        if len(asked) == 3:
            raise KeyError("an error that nats-py does not expect")
        return f"token-{len(asked)}"

    async with Script() as server:
        bus = await connect(server.url, options=Options(token=token))
        back = asyncio.Event()
        bus.on_reconnect(back.set)
        server.writers[-1].transport.abort()
        await asyncio.wait_for(back.wait(), PATIENCE)
        assert len(asked) == 4
        assert any(b'"token-4"' in line for line in server.lines)
        await bus.close()


async def test_restart_is_noticed_by_attempts_a_fraction_of_a_second_apart(
    own_bus: NatsBus, server: EmbeddedServer
) -> None:
    back = asyncio.Event()
    own_bus.on_reconnect(back.set)
    assert own_bus.link.client.options["reconnect_time_wait"] <= 0.25
    server.kill()
    await server.start()
    await asyncio.wait_for(back.wait(), PATIENCE)
    assert (await own_bus.facts()).version


async def test_raising_listener_stops_neither_reconnect_nor_the_others(
    cut_bus: NatsBus, cut: Cut
) -> None:
    back = asyncio.Event()

    def raising() -> None:
        raise RuntimeError("a listener's fault")

    cut_bus.on_reconnect(raising)
    cut_bus.on_reconnect(back.set)
    cut.cut()
    await asyncio.wait_for(back.wait(), PATIENCE)
    assert (await cut_bus.facts()).jetstream


async def test_cancelled_flush_keeps_the_read_loop_alive(bus: NatsBus) -> None:
    """In nats-py the late PONG meets a cancelled future and ends the loop, unnoticed."""
    for _ in range(50):
        waiting = asyncio.create_task(bus.link.client.barrier(5))
        await asyncio.sleep(0)
        waiting.cancel()
    late = asyncio.get_running_loop().create_future()
    late.cancel()
    await bus.link.client._send_ping(late)  # pyright: ignore[reportUnknownMemberType] - untyped in nats-py
    assert (await bus.facts()).jetstream


async def test_raising_callback_keeps_the_read_loop_alive(bus: NatsBus, capability: str) -> None:
    heard: list[bytes] = []

    def receive(data: bytes) -> None:
        heard.append(data)
        raise ValueError("a receiver's fault")

    await bus.core.subscribe(f"test.{capability}", lambda message: receive(message.data))
    bus.core.publish(f"test.{capability}", b"1")
    bus.core.publish(f"test.{capability}", b"2")
    await until(lambda: heard == [b"1", b"2"])


async def test_dead_line_is_noticed_by_pings(cut: Cut) -> None:
    """Nothing arrives any more, not even an end of the connection."""
    bus = await connect(cut.url)
    client = bus.link.client
    assert (client.options["ping_interval"], client.options["max_outstanding_pings"]) == (5, 2)
    back = asyncio.Event()
    bus.on_reconnect(back.set)
    cut.deaf = True
    client.options["ping_interval"] = 0.01
    assert client._ping_interval_task is not None
    client._ping_interval_task.cancel()
    client._ping_interval_task = asyncio.create_task(client._ping_interval())
    await until(lambda: not client.ready)
    cut.deaf = False
    cut.cut()
    await asyncio.wait_for(back.wait(), PATIENCE)
    await bus.close()


async def test_close_with_a_dead_broker_returns(own_bus: NatsBus, server: EmbeddedServer) -> None:
    server.kill()
    await asyncio.wait_for(own_bus.close(), PATIENCE)


async def test_facts_are_read(private_server: StartServer) -> None:
    """The sync interval only where the monitoring page of this very server tells it."""
    server = await private_server(durability="durable")
    other = await private_server()
    plain = await connect(server.url)
    facts = await plain.facts()
    assert (facts.sync_interval, facts.jetstream, facts.max_payload) == ("unknown", True, 1048576)
    assert server.url == f"nats://{facts.address}"
    assert timedelta() < facts.rtt < timedelta(seconds=PATIENCE)
    await plain.close()
    for url, wanted in ((server.monitoring_url, "always"), (other.monitoring_url, "unknown")):
        bus = await connect(server.url, options=Options(monitoring_url=url))
        assert wanted == (await bus.facts()).sync_interval
        await bus.close()
    bus = await connect(other.url, options=Options(monitoring_url=other.monitoring_url))
    assert (await bus.facts()).sync_interval == "2m0s"
    await bus.close()


async def test_facts_without_a_broker_are_unavailable(
    own_bus: NatsBus, server: EmbeddedServer
) -> None:
    server.kill()
    with pytest.raises(Unavailable):
        await own_bus.facts()
