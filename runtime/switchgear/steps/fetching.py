"""Puts a spec's sources where a step can be shown them: commits checked out, artifacts unpacked, in its workspace.

Runs on the host, outside of any sandbox, and executes nothing of what it fetches: no hooks, filters or submodules.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from switchgear.contract.artifact import Artifact
from switchgear.errors import StepFailed
from switchgear.steps import packing, spawning
from switchgear.steps.host import clean_environment
from switchgear.steps.sources import Git, Local

if TYPE_CHECKING:
    from pathlib import Path

    from switchgear.steps.sources import Mount
    from switchgear.steps.spec import StepSpec
    from switchgear.steps.workspace import Workspace

STALL = 60
"""Seconds for which a host may be silent: else a step without a time limit would wait for ever."""
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.version=2",
    "gc.auto=0",
    "advice.detachedHead=false",
    "filter.lfs.smudge=",
    "filter.lfs.required=false",
    "http.lowSpeedLimit=1",
    f"http.lowSpeedTime={STALL}",
)
_QUIET = {
    # No prompt by git or ssh, no download of large files.
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": f"ssh -oBatchMode=yes -oConnectTimeout={STALL} "
    f"-oServerAliveInterval={STALL // 4} -oServerAliveCountMax=4",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_ALLOW_PROTOCOL": "file:https:ssh",
    "LC_ALL": "C.UTF-8",
}
_REACHING = frozenset(
    {"SSH_AUTH_SOCK", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CONFIG_HOME"}
    | {name for base in ("ALL", "HTTP", "HTTPS", "NO") for name in (f"{base}_PROXY", f"{base}_proxy".lower())}
)  # fmt: skip
"""Variables of the agent by which git reaches a host; the step itself gets none of them."""
_PASSING = (
    "could not resolve", "timed out", "connect to", "connection", "early eof", "http 5", "error: 5", "temporar",
    "too slow", "timeout, server",
)  # fmt: skip
"""What git says, in lower case, when the network or the host failed and not the request."""
_DENIED = (
    "authentication failed",
    "permission denied",
    "could not read username",
    "error: 401",
    "error: 403",
)
_KEPT = 16 * 1024
"""Bytes kept of what git says."""


def due(spec: StepSpec) -> float | None:
    """When all that a step mounts must be there, by the loop's clock, if its time limit begins now; None: never."""
    limit = spec.time_limit
    return None if limit is None else asyncio.get_running_loop().time() + limit.total_seconds()


async def places(
    spec: StepSpec, workspace: Workspace, until: float | None, folder: str = ""
) -> dict[str, str]:
    """Where the host finds what a spec mounts, by its path inside; the rest and the errors as for `place`."""
    return {
        mount.path: await place(mount, f"{folder}mount-{number}", workspace, until)
        for number, mount in enumerate(spec.mounts)
    }


async def place(mount: Mount, name: str, workspace: Workspace, until: float | None) -> str:
    """Where the host finds the mount's source now; `name`: of its place in the workspace.

    `until`: when it must be there, by the loop's clock. Raises StepFailed, NotFound and ProtocolError for an artifact.
    """
    timer = asyncio.timeout_at(until)
    try:
        async with timer:
            return await _place(mount, name, workspace)
    except TimeoutError:
        if not timer.expired():
            raise
    host = git_host(mount.source) if isinstance(mount.source, Git) else ""
    raise StepFailed(
        f"step {workspace.key} did not get what it mounts at {mount.path} within its limit",
        key=workspace.key,
        error_class="timeout",
        dependency=f"git:{host}" if host else "",
        fix="look whether the source can be reached, or give the step more time",
    )


async def _place(mount: Mount, name: str, workspace: Workspace) -> str:
    source = mount.source
    if isinstance(source, Local):
        if not os.path.lexists(source.path):  # noqa: ASYNC240 - one look
            raise _invalid(
                workspace.key, f"{source.path} does not exist", "create it, or change .mount()"
            )
        return source.path
    home = workspace.directory / name
    if isinstance(source, Artifact):
        data = await workspace.load(source)
        try:
            await asyncio.to_thread(packing.unpack, source, data, home)
        except packing.Unpackable as error:
            raise _invalid(workspace.key, str(error), "make the artifact again") from error
    else:
        await _check_out(source, home, workspace.key)
    return str(home)


def git_host(source: Git) -> str:
    """The host that the commit comes from; empty for a local one."""
    if "://" in source.url:
        return urlsplit(source.url).hostname or ""
    return source.url.partition("@")[2].partition(":")[0]


async def _check_out(source: Git, home: Path, key: str) -> None:
    home.mkdir()  # noqa: ASYNC240 - as above
    here = ("-C", str(home))
    await _git(source, key, *here, "init", "--quiet", "--template=")
    fetch = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules")
    await _git(source, key, *here, *fetch, "--", source.url, source.ref)
    await _git(source, key, *here, "checkout", "--quiet", "--detach", "FETCH_HEAD")


async def _git(source: Git, key: str, *args: str) -> None:
    kept = {name: os.environ[name] for name in _REACHING if name in os.environ}
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    streams = spawning.Streams(_KEPT, None)
    program = spawning.Program(
        ["git", *settings, *args], {**clean_environment(os.environ), **kept, **_QUIET}
    )
    try:
        code = await spawning.run(program, streams)
    except spawning.NotStarted as error:
        raise _invalid(key, f"git cannot be started: {error}", "install git") from error
    if code == 0:
        return
    said = streams.stderr.strip()[-1000:]
    host = git_host(source)
    raise StepFailed(
        f"step {key} cannot have {source.url} at {source.ref}",
        key=key,
        error_class=_class(said.lower()),
        dependency=f"git:{host}" if host else "",
        why=said,
        fix="check the URL and the ref, and that git on the agent's host can fetch it",
    )


def _class(said: str) -> str:
    if any(sign in said for sign in _DENIED):
        return "auth"
    return "transient" if any(sign in said for sign in _PASSING) else "invalid"


def _invalid(key: str, why: str, fix: str) -> StepFailed:
    return StepFailed(f"step {key} cannot run", key=key, error_class="invalid", why=why, fix=fix)
