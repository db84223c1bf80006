"""Options that every command takes, and the way from them to a mesh."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from switchgear.cli.output import Output
    from switchgear.client.mesh import Mesh
    from switchgear.settings import Settings

SHARED = Group("Shared options", sort_key=9)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Options that every command takes."""

    url: Annotated[str | None, Parameter(group=SHARED)] = None
    """Broker to use, such as nats://127.0.0.1:4222."""
    context: Annotated[str | None, Parameter(group=SHARED)] = None
    """Saved context to use: see `switchgear context ls`."""
    json: Annotated[bool, Parameter(group=SHARED, negative="", show_default=False)] = False
    """Print one JSON document on the standard output."""

    @property
    def output(self) -> Output:
        """Where the command's answer goes."""
        from switchgear.cli.output import Output

        return Output(as_json=self.json)


COMMON = Common()


class Located(NamedTuple):
    """Settings, and where each of them came from."""

    settings: Settings
    origins: dict[str, str]


def locate(common: Common) -> Located:
    """The settings in force: options > environment > context > a running `switchgear dev` > default.

    Raises NotFound for a context that was never saved, ConfigError for settings that cannot be used.
    """
    from switchgear import discovery, settings

    origins: dict[str, str] = {}
    url = common.url
    try:
        loaded = settings.Settings.load(url=url, context=common.context)
    except settings.NotFound as error:
        raise _with_matches(error, common) from None
    saved = settings.read(loaded.context) if loaded.context else None
    if common.url:
        origins["url"] = "--url"
    elif os.environ.get("SWITCHGEAR_URL") and not common.context:
        origins["url"] = "SWITCHGEAR_URL"
    elif saved is not None:
        origins["url"] = f"context {loaded.context}"
    elif (running := discovery.find()) is not None:
        origins["url"] = str(running.path)
    else:
        origins["url"] = "default"
    if os.environ.get("SWITCHGEAR_PRINCIPAL"):
        origins["principal"] = "SWITCHGEAR_PRINCIPAL"
    else:
        origins["principal"] = f"context {loaded.context}" if saved else "default"
    origins["context"] = _origin_of_context(common, loaded.context)
    return Located(loaded, origins)


@asynccontextmanager
async def joined(common: Common) -> AsyncGenerator[Mesh]:
    """The mesh of the settings in force. Raises Unavailable, ServerUnfit, ClearTextRefused."""
    from switchgear.client.connect import Connection

    async with Connection(locate(common).settings) as mesh:
        yield mesh


@contextmanager
def answered_by(service: str, command: str) -> Generator[None]:
    """Name the service that does not answer, and the command that starts it."""
    from switchgear.errors import Unavailable

    try:
        yield
    except Unavailable as error:
        if error.fix != Unavailable.default_fix:
            raise
        raise Unavailable(
            f"{service} does not answer",
            why=error.what,
            fix=f"start it: `{command}` (`switchgear dev` starts all that a mesh needs)",
            retry_after=error.retry_after,
        ) from error


COORDINATOR = ("the coordinator", "switchgear coordinator")
READ_MODEL = ("the read model", "switchgear observe")


def run(work: Any) -> Any:
    """Run a command's coroutine and return its result."""
    from switchgear import loop

    return loop.run(work)


def _with_matches(error: Exception, common: Common) -> Exception:
    from switchgear import settings
    from switchgear.cli import suggest

    name = common.context or os.environ.get("SWITCHGEAR_CONTEXT")
    if not name:
        # The selected context was deleted behind our back.
        name = settings.selected()
    fix = "`switchgear context ls` lists the saved ones"
    return suggest.unknown("context", name, settings.names(), fix=fix) if name else error


def _origin_of_context(common: Common, name: str) -> str:
    if not name:
        return "none"
    if common.context:
        return "--context"
    if os.environ.get("SWITCHGEAR_CONTEXT"):
        return "SWITCHGEAR_CONTEXT"
    return "`switchgear context use`"
