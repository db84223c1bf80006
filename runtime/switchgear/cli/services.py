"""The services as processes: `switchgear coordinator`, `observe`, `agent run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    import asyncio

    from switchgear.agent.declare import Agent
    from switchgear.coordinator.settings import CoordinatorSettings
    from switchgear.settings import Settings


def coordinator(
    *,
    retention_age: str | None = None,
    retention_count: int | None = None,
    archive: Path | None = None,
    archive_format: Literal["jsonl", "parquet"] | None = None,
    common: Common = COMMON,
) -> int:
    """Serve as a coordinator until SIGTERM or Ctrl-C.

    Args:
        retention_age: How long the ledger keeps tasks that have ended, such as 7d.
        retention_count: How many of them it keeps at most.
        archive: Folder that gets what the ledger no longer keeps.
        archive_format: JSON lines unless told otherwise; Parquet needs the extra `parquet`.
        common: Shared by all commands.
    """
    from switchgear.cli import values
    from switchgear.coordinator.settings import CoordinatorSettings
    from switchgear.errors import UsageError

    age = values.duration(retention_age) if retention_age else None
    told = CoordinatorSettings.load(
        os.environ,
        retention_age=age,
        retention_count=retention_count,
        archive=archive,
        archive_format=archive_format,
    )
    if archive_format and told.archive is None:
        raise UsageError("--archive-format needs --archive", fix="add --archive FOLDER")
    _log()
    shared.run(_coordinate(shared.locate(common).settings, told))
    return 0


def observe(*, path: Path = Path(".switchgear/history.sqlite"), common: Common = COMMON) -> int:
    """Serve the read model until SIGTERM or Ctrl-C.

    Args:
        path: File of the read model; made where it is missing, and rebuilt from the ledger.
        common: Shared by all commands.
    """
    _log()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shared.run(_observe(shared.locate(common).settings, path))
    return 0


def agent_run(agent: str, /, *, common: Common = COMMON) -> int:
    """Serve an agent until SIGTERM, Ctrl-C, or an order to drain.

    Args:
        agent: MODULE:ATTR, such as hello:agent; modules of the working directory are found.
        common: Shared by all commands.
    """
    from switchgear.agent.process import run

    _log()
    run(load_agent(agent), shared.locate(common).settings)
    return 0


def load_agent(path: str) -> Agent:
    """Import an agent. Raises UsageError for what is not there or is no agent."""
    from importlib import import_module

    from switchgear.agent.declare import Agent
    from switchgear.cli import suggest, values
    from switchgear.errors import UsageError

    name, attribute = values.agent_path(path)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"{name} cannot be imported", why=str(error), fix=f"install {error.name}"
            ) from error
        fix = f"run it where {name} can be imported, or install it; looked in {here} and sys.path"
        raise UsageError(f"there is no module {name}", fix=fix) from error
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        raise UsageError(f"{name} cannot be imported", why=f"{error.msg} in {where}") from error
    found = getattr(module, attribute, None)
    if isinstance(found, Agent):
        return found
    agents = [one for one, value in vars(module).items() if isinstance(value, Agent)]
    near = suggest.near(attribute, agents) or agents
    fix = f"did you mean {name}:{near[0]}?" if near else "write `agent = Agent(…)` in it"
    raise UsageError(f"{name} has no agent {attribute!r}", fix=fix)


def _log() -> None:
    import logging

    wanted = os.environ.get("SWITCHGEAR_LOG", "info").upper()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.getLevelNamesMapping().get(wanted, logging.INFO),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        datefmt="%H:%M:%S",
    )


async def _coordinate(settings: Settings, how: CoordinatorSettings) -> None:
    from switchgear.bus.connection import connect
    from switchgear.errors import ExtraMissing

    try:
        from switchgear.coordinator.service import Coordinator
    except ModuleNotFoundError as error:
        raise ExtraMissing("the coordinator", "coordinator") from error
    told = _told()
    bus = await connect(
        settings.url, name="coordinator", principal="coordinator", lane_ack_wait=how.lease
    )
    try:
        service = Coordinator(bus, settings=how)
        await service.start()
        await told.wait()
        await service.stop()
    finally:
        await bus.close()


async def _observe(settings: Settings, path: Path) -> None:
    import asyncio
    import contextlib
    import logging

    from switchgear.bus.connection import connect
    from switchgear.projections.service import observe as serve

    told = _told()
    bus = await connect(settings.url, name="observe", principal="observe")
    log = logging.getLogger(__name__)

    def ready() -> None:
        log.info("observe.ready %s %s", bus.name, path)

    try:
        service = asyncio.create_task(serve(bus, path, ready=ready))
        stop = asyncio.create_task(told.wait())
        await asyncio.wait((service, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if service.done():
            service.result()
        service.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await service
    finally:
        await bus.close()


def _told() -> asyncio.Event:
    """Set by SIGTERM and Ctrl-C."""
    import asyncio
    import signal

    told = asyncio.Event()
    loop: Any = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told
