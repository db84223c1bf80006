"""`switchgear dev`: a mesh for development, until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    import asyncio

    from switchgear.cli.local_mesh import LocalMesh
    from switchgear.cli.output import Output


def dev(
    *agents: str,
    port: int | None = None,
    state: Path = Path(".switchgear"),
    durability: Literal["standard", "durable"] = "standard",
    fresh: bool = False,
    common: Common = COMMON,
) -> int:
    """Run a whole mesh on this machine for development.

    Args:
        agents: Agents to run, written MODULE:ATTR; each in its own process, restarted when it crashes.
        port: Of the server on 127.0.0.1; by default any free one.
        state: Folder for streams, read model and logs; commands in this folder and below find the mesh by it.
        durability: standard survives the death of any process, durable a power loss too.
        fresh: Forget what an earlier mesh left in the folder.
        common: Shared by all commands.
    """
    from switchgear.cli.local_mesh import LocalMesh

    output = common.output
    if port is not None and not 0 < port < 65536:  # noqa: PLR2004 - what TCP has
        from switchgear.errors import UsageError

        raise UsageError(f"port {port} cannot be used", fix="give one from 1 to 65535, or none")

    async def serve() -> int:
        from switchgear.cli.render.dev import Prefixed

        prefixed = Prefixed(output)
        mesh = LocalMesh(state, agents, say=prefixed.line, port=port, durability=durability)
        prefixed.widen(["coordinator", "observe", *mesh.agents])
        return await _serve(mesh, output, fresh=fresh)

    return shared.run(serve())


async def _serve(mesh: LocalMesh, output: Output, *, fresh: bool) -> int:
    """Keep the mesh until told to end; a second Ctrl-C waits for nobody."""
    import asyncio

    told = _signals(mesh)
    starting = asyncio.create_task(mesh.start(fresh=fresh))
    ending = asyncio.create_task(told.wait())
    try:
        await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            _tell_ready(mesh, output)
            await ending
    finally:
        for task in (starting, ending):
            task.cancel()
        await asyncio.gather(starting, ending, return_exceptions=True)
        if told.is_set():
            output.say("stopping: agents finish what they run (Ctrl-C again: at once)")
        await mesh.stop()
    return 0


def _signals(mesh: LocalMesh) -> asyncio.Event:
    import asyncio
    import signal

    told = asyncio.Event()

    def asked() -> None:
        if told.is_set():
            mesh.hurry()
        told.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked)
    return told


def _tell_ready(mesh: LocalMesh, output: Output) -> None:
    from switchgear.cli.render import dev

    children = mesh.supervisor.children
    document = {
        "url": mesh.url,
        "state": str(mesh.state),
        "logs": str(mesh.logs),
        "agents": mesh.agents,
        "processes": {name: child.pid for name, child in children.items()},
    }
    found_by_itself = _finds_by_itself(mesh.url)
    output.put(
        "dev",
        document,
        lambda: dev.ready(mesh.url, mesh.state, mesh.agents, found_by_itself=found_by_itself),
    )


def _finds_by_itself(url: str) -> bool:
    """Whether commands in this folder come here without any option: a variable or context may say otherwise."""
    from switchgear.errors import SwitchgearError

    try:
        return shared.locate(COMMON).settings.url == url
    except SwitchgearError:
        return False
