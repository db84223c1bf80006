"""`switchgear doctor`: gathers facts and prints a verdict on each."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from switchgear.cli import common as shared
from switchgear.cli import exits
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    from collections.abc import Generator

    from switchgear.bus.connection import NatsBus
    from switchgear.cli.checks import Check
    from switchgear.discovery import Running
    from switchgear.settings import Settings


def doctor(*, monitoring: str | None = None, common: Common = COMMON) -> int:
    """Check the settings, the broker, the mesh and this installation.

    Args:
        monitoring: The server's monitoring address, such as http://127.0.0.1:8222; found by itself for a
            local mesh.
        common: Shared by all commands.
    """
    from switchgear.cli.render import doctor as screen

    found = shared.run(_gather(common, monitoring))
    counts = {word: sum(one.verdict == word for one in found) for word in ("ok", "warn", "fail")}
    code = _exit_code(found)
    document = {"checks": [one._asdict() for one in found], "counts": counts, "exit_code": code}
    common.output.put("doctor", document, lambda: screen.report(found, counts))
    return code


def _exit_code(found: list[Check]) -> int:
    if any(one.name == "broker" and one.verdict == "fail" for one in found):
        return exits.UNREACHABLE
    return exits.PARTIAL if any(one.verdict == "fail" for one in found) else exits.OK


async def _gather(common: Common, monitoring: str | None) -> list[Check]:
    from switchgear import discovery
    from switchgear.cli import checks

    located = shared.locate(common)
    settings = located.settings
    found = [
        checks.setting("url", settings.url, located.origins["url"]),
        checks.setting("principal", settings.principal, located.origins["principal"]),
        checks.setting("context", settings.context, located.origins["context"]),
        *_installation(),
        await _sandbox(),
    ]
    running = discovery.find()
    if running is not None and running.url != settings.url:
        running = None
    if running is not None:
        restarts = {name: one.restarts for name, one in running.processes.items()}
        found.append(checks.processes(restarts, f"{running.state}/logs"))
    found += await _mesh(settings, monitoring or _monitoring(settings.url, running))
    if running is not None:
        found.append(_disk(f"{running.state}/nats"))
    return found


def _installation() -> list[Check]:
    """This interpreter and what is installed beside it."""
    import sys
    from importlib.util import find_spec

    from switchgear.cli import checks
    from switchgear.errors import SwitchgearError
    from switchgear.server import find_binary

    missing = {
        extra: [name for name in modules if find_spec(name) is None]
        for extra, modules in checks.EXTRAS.items()
    }
    path, error = "", None
    try:
        path = str(find_binary())
    except SwitchgearError as missing_binary:
        error = missing_binary
    return [
        checks.python(sys.version_info[:3]),
        checks.extras(missing),
        checks.binary(path, error),
    ]


async def _sandbox() -> Check:
    """Whether agents on this host can isolate their steps."""
    import os

    from switchgear.cli import checks
    from switchgear.errors import ConfigError
    from switchgear.steps import bubblewrap
    from switchgear.steps.settings import StepSettings

    try:
        isolation = StepSettings.load(os.environ).isolation
    except ConfigError as error:
        return checks.failed("sandbox", error)
    return checks.sandbox(await bubblewrap.probe(), isolation)


async def _mesh(settings: Settings, monitoring: str) -> list[Check]:
    """Everything that needs a connection; without one, only why there is none."""
    from switchgear.bus.connection import Options, connect
    from switchgear.cli import checks
    from switchgear.errors import SwitchgearError

    try:
        bus = await connect(
            settings.url,
            name="doctor",
            principal=settings.principal,
            options=Options(monitoring_url=monitoring),
        )
    except SwitchgearError as error:
        return [checks.failed("broker", error)]
    try:
        return [
            *await _broker(bus, settings.url),
            *await _streams(bus),
            *await _services(bus, settings),
        ]
    finally:
        await bus.close()


async def _broker(bus: NatsBus, url: str) -> list[Check]:
    from switchgear.cli import checks

    found: list[Check] = []
    with _answering("broker", found):
        facts = await bus.facts()
        found += [
            checks.Check("broker", "ok", f"nats-server {facts.version} at {facts.address}"),
            checks.round_trip(facts.rtt),
            checks.jetstream(enabled=facts.jetstream),
            checks.payload(facts.max_payload),
            checks.sync(facts.sync_interval, is_local=_is_local(url)),
        ]
    return found


async def _streams(bus: NatsBus) -> list[Check]:
    """The streams' settings; and, from the answer of the first, the broker's clock."""
    from switchgear.bus.asking import ApiError
    from switchgear.bus.streams import StreamSettings, configs
    from switchgear.cli import checks
    from switchgear.clock import SYSTEM

    found: list[Check] = []
    skew: timedelta | None = None
    for wanted in configs(StreamSettings()):
        name = wanted["name"]
        with _answering(f"stream {name}", found):
            before = SYSTEM.now()
            try:
                info = await bus.link.asking.api(f"STREAM.INFO.{name}")
            except ApiError:
                found.append(checks.stream(name, None, wanted))
                continue
            if skew is None and "ts" in info:
                skew = before + (SYSTEM.now() - before) / 2 - _moment(info["ts"])
            found.append(checks.stream(name, info["config"], wanted))
    if skew is not None:
        found.append(checks.clock(skew))
    return found


async def _services(bus: NatsBus, settings: Settings) -> list[Check]:
    from time import perf_counter

    from switchgear.cli import checks
    from switchgear.client.mesh import Mesh

    mesh = Mesh(bus, settings.principal)
    found: list[Check] = []
    with _answering("coordinator", found), shared.answered_by(*shared.COORDINATOR):
        before = perf_counter()
        rows = (await mesh.capabilities()).rows
        took = timedelta(seconds=perf_counter() - before)
        instances = (await mesh.agents()).instances
        found.append(checks.coordinator(took, len({row.offer.name for row in rows})))
        found.append(checks.agents(len(instances), sum(one.draining for one in instances)))
    with _answering("read model", found), shared.answered_by(*shared.READ_MODEL):
        found.append(checks.read_model((await mesh.list(limit=1)).lag))
    return found


@contextmanager
def _answering(name: str, found: list[Check]) -> Generator[None]:
    """An error is the check's answer."""
    from switchgear.cli import checks
    from switchgear.errors import SwitchgearError

    try:
        yield
    except SwitchgearError as error:
        found.append(checks.failed(name, error))


def _monitoring(url: str, running: Running | None) -> str:
    """Where the server tells its sync setting, as far as one can know."""
    if running is not None:
        return running.monitoring_url
    return "http://127.0.0.1:8222" if _is_local(url) else ""


def _is_local(url: str) -> bool:
    from urllib.parse import urlsplit

    from switchgear.bus.raw import is_loopback

    return all(is_loopback(urlsplit(one.strip()).hostname) for one in url.split(","))


def _disk(path: str) -> Check:
    import shutil

    from switchgear.cli import checks

    usage = shutil.disk_usage(path)
    return checks.disk(usage.free, usage.total, path)


def _moment(text: Any) -> datetime:
    """A time of the broker, which may have nine decimals."""
    whole, _, fraction = str(text).rstrip("Z").partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return moment + timedelta(microseconds=int(fraction[:6].ljust(6, "0") or 0))
