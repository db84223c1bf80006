"""`switchgear demo`: the main job on a real repository, on a mesh of its own that leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from switchgear.cli import common as shared
from switchgear.cli import exits
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    from pathlib import Path

    from switchgear.cli.local_mesh import LocalMesh
    from switchgear.cli.output import Output
    from switchgear.cli.report import Report
    from switchgear.client.mesh import Mesh
    from switchgear.contract.queries import Timeline

AGENTS: Final = (
    "switchgear_agents.check_repo:agent",
    "switchgear_agents.pytest_runner:agent",
    "switchgear_agents.secrets:agent",
    "switchgear_agents.lint:agent",
    "switchgear_agents.metrics:agent",
)
PATIENCE: Final = 20.0
"""Seconds to wait until the read model has read the run's last entry."""
_POLL: Final = 0.02


class _Result(NamedTuple):
    task: str
    report: Report
    timeline: Timeline


def demo(repo: str = ".", /, *, ref: str | None = None, common: Common = COMMON) -> int:
    """Check a git repository with real agents on a mesh of its own.

    Args:
        repo: Path or URL of a git repository; by default the one of this folder. Its tests are executed.
        ref: Branch, tag or commit; by default what is checked out there.
        common: Shared by all commands.
    """
    import tempfile
    from pathlib import Path

    source = repository(repo)
    _need_agents()
    with tempfile.TemporaryDirectory(prefix="switchgear-demo-") as folder:
        return shared.run(_demo(source, ref, Path(folder), common))


def repository(text: str) -> str:
    """An absolute path, or the URL as it is. Raises UsageError for a path without a repository."""
    import subprocess
    from pathlib import Path

    from switchgear.errors import UsageError

    if "://" in text or text.startswith("git@"):
        return text
    path = Path(text).expanduser().absolute()
    fix = "give the path or URL of a git repository: switchgear demo PATH"
    try:
        found = subprocess.run(
            ["git", "-C", str(path), "rev-parse", "--show-toplevel"],
            capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise UsageError("git is not installed", fix="install git") from error
    if found.returncode:
        raise UsageError(f"{path} is no git repository", why=found.stderr.strip(), fix=fix)
    return found.stdout.strip()


def _need_agents() -> None:
    from importlib.util import find_spec

    from switchgear.errors import ExtraMissing

    if any(find_spec(name) is None for name in ("detect_secrets", "lizard", "jsonschema_rs")):
        raise ExtraMissing("the demo", "all")


async def _demo(source: str, ref: str | None, folder: Path, common: Common) -> int:
    import asyncio
    import os

    from switchgear.cli import demo_steps
    from switchgear.cli.local_mesh import LocalMesh

    output = common.output
    loop = asyncio.get_running_loop()
    began = loop.time()
    environment = demo_steps.environment(os.environ)
    mesh = LocalMesh(folder, AGENTS, say=_whispering(output), environment=environment)
    stop = _on_signals(asyncio.current_task())
    try:
        await mesh.start()
        ready = loop.time()
        _introduce(mesh, source, ready - began, output)
        found = await _job(mesh, source, ref, output)
        took = loop.time() - ready
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        raise KeyboardInterrupt from None
    finally:
        mesh_ended = asyncio.ensure_future(mesh.stop())
        if stop.is_set():
            mesh.hurry()
        await asyncio.shield(mesh_ended)
    await _tell(found, ready - began, took, output)
    return exits.OK


async def _job(mesh: LocalMesh, source: str, ref: str | None, output: Output) -> _Result:
    """Submit, show progress, and read report and timeline. Raises TaskFailed."""
    from switchgear.cli.following import Following
    from switchgear.cli.report import Report
    from switchgear.client.connect import Connection
    from switchgear.errors import TaskFailed
    from switchgear.settings import Settings

    async with Connection(Settings(url=mesh.url)) as client:
        async with Following(client, output) as followed:
            request: dict[str, Any] = {"source": source, "ref": ref}
            handle = await client.submit("check-repo", request)
            followed.root(handle.id)
            try:
                report = await handle.result(Report)
            except TaskFailed:
                await followed.finish()
                _tell_timeline(await _timeline(client, handle.id), output)
                raise
            await followed.finish()
        return _Result(handle.id, report, await _timeline(client, handle.id))


async def _timeline(client: Mesh, root: str) -> Timeline:
    """The run's entries once the read model has them all, or what it has when patience ends."""
    import asyncio

    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while True:
        found = await client.timeline(root)
        if found.lag == 0 or loop.time() > until:
            return found
        await asyncio.sleep(_POLL)


def _introduce(mesh: LocalMesh, source: str, seconds: float, output: Output) -> None:
    import os

    from switchgear.cli import demo_steps

    if output.as_json:
        return
    count = len(mesh.agents)
    output.say(
        f"mesh ready in {seconds:.1f} s: nats-server, coordinator, read model and {count} agents,"
    )
    engine = demo_steps.engine(os.environ)
    where = "as processes, in sandboxes if they can" if engine is None else f"in {engine.where}"
    output.say(f"each a process of its own. Steps run {where}.")
    output.say(f"checking {source}\n")


async def _tell(found: _Result, start: float, took: float, output: Output) -> None:
    import os

    import msgspec

    from switchgear.cli import demo_steps

    steps = demo_steps.ran(found.timeline.moments)
    plain = any(one.isolation == "not isolated" for one in steps)
    why_plain = await demo_steps.why_plain(os.environ) if plain else ""
    told = demo_steps.told(steps, demo_steps.engine(os.environ), why_plain)

    def draw() -> Any:
        from rich.console import Group
        from rich.text import Text

        from switchgear.cli.render import report, tasks

        return Group(
            Text(),
            report.report(found.report),
            Text(),
            Text(f"timeline of run {found.task}, as the ledger has it", style="bold"),
            tasks.timeline(found.timeline.moments),
            Text(),
            Text(f"done in {took:.1f} s ({start:.1f} s to start the mesh); {told}"),
        )

    document = {
        "task": found.task,
        "report": msgspec.to_builtins(found.report),
        "timeline": msgspec.to_builtins(found.timeline.moments),
        "mesh_seconds": round(start, 3),
        "job_seconds": round(took, 3),
        "executor": demo_steps.kinds(steps),
        "steps": [one._asdict() for one in steps],
    }
    output.put("demo", document, draw)


def _tell_timeline(found: Timeline, output: Output) -> None:
    """For a job that did not complete: what happened, beside the error."""
    if not output.as_json:
        from switchgear.cli.render import tasks

        output.say(tasks.timeline(found.moments))


def _whispering(output: Output) -> Any:
    """Only what the mesh itself has to say is shown; its processes write logs."""

    def say(name: str, text: str) -> None:
        if name == "dev":
            output.say(text)

    return say


def _on_signals(task: Any) -> Any:
    """Ctrl-C and SIGTERM end the demo in order; the event tells that it was so."""
    import asyncio
    import signal

    told = asyncio.Event()

    def asked() -> None:
        told.set()
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked)
    return told
