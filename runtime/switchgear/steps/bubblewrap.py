"""Runs programs inside a sandbox by bubblewrap, and tells whether it can on this host.

Below the process executor. Arguments travel through an anonymous file: a command line, which anybody may read, would
show the texts of secrets. bwrap's own failures are told from the command's by its status records: an exit code stands
there only if the command ran.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from switchgear.resilience.classes import DISK, Verdict
from switchgear.resilience.os_failures import shortage, shortage_told
from switchgear.steps import processes, spawning
from switchgear.steps.sandbox import PACKAGE, PROGRAM, Sandbox, arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

_GONE = 2.0
"""Seconds to wait for the last process of a sandbox, which the kernel is ending."""
_STATUS = 64 * 1024
"""Bytes of status records at most."""
_FROM_OUTSIDE = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})
_PROBE = 5.0
"""Seconds that the probe may take."""

INSTALL = f"install the package {PACKAGE}"


class _Record(msgspec.Struct):
    """What bwrap tells; each record has one of them."""

    child: int | None = msgspec.field(default=None, name="child-pid")
    exit_code: int | None = msgspec.field(default=None, name="exit-code")


class Job(NamedTuple):
    """One command in a sandbox."""

    sandbox: Sandbox
    argv: Sequence[str]
    stdin: str | None = None
    limits: Sequence[spawning.Rlimit] = ()


class NotRun(Exception):
    """The command did not begin; the text is what bwrap said."""


def path() -> str | None:
    """Where bwrap is; None: it is not installed."""
    where = os.environ.get("PATH", os.defpath)
    found = _FOUND.get(where) or shutil.which(PROGRAM, path=where)
    if found is not None:
        _FOUND[where] = found
    return found


_FOUND: dict[str, str] = {}
"""Where it was found before, by PATH: every step asks, and it does not move."""


async def run(job: Job, streams: spawning.Streams) -> int:
    """The command's exit code, 0 to 255. Left early, everything in the sandbox is gone before this is left.

    Raises NotRun, spawning.NotStarted.
    """
    told = streams.tails[2].fed
    with ExitStack() as stack:
        try:
            given, status, tell = _channels(job, stack)
        except OSError as error:
            raise spawning.NotStarted(error.strerror or str(error)) from error
        program = spawning.Program(
            [*job.sandbox.entering, path() or PROGRAM, "--args", str(given), "--", *job.argv],
            {name: os.environ[name] for name in ("PATH",) if name in os.environ},
            stdin=job.stdin,
            limits=job.limits,
            fds=(given, tell),
            hunted=False,
        )
        try:
            code = await spawning.run(program, streams)
        finally:
            records = _records(status)
            await _gone(records.child)
    if records.exit_code is not None:
        return records.exit_code
    if records.child is not None and -code in _FROM_OUTSIDE:
        # bwrap itself was killed, and its sandbox with it: the command may have run
        return 128 - code
    raise NotRun(streams.tails[2].text(told).strip() or "bwrap ended without a word")


def _channels(job: Job, stack: ExitStack) -> tuple[int, int, int]:
    """Open files: with the arguments, and both ends of the pipe for the records. Raises OSError."""
    given = os.memfd_create("switchgear-step", os.MFD_CLOEXEC)
    stack.callback(os.close, given)
    status, tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    stack.callback(os.close, status)
    stack.callback(os.close, tell)
    os.write(given, b"\0".join(os.fsencode(one) for one in arguments(job.sandbox, tell)))
    os.lseek(given, 0, os.SEEK_SET)
    return given, status, tell


def _records(status: int) -> _Record:
    """All records as one; what was not told stays None."""
    try:
        text = os.read(status, _STATUS)
    except BlockingIOError:
        text = b""
    found = _Record()
    for line in text.splitlines():
        try:
            record = msgspec.json.decode(line, type=_Record)
        except msgspec.MsgspecError:
            continue
        found.child = found.child or record.child
        found.exit_code = record.exit_code if found.exit_code is None else found.exit_code
    return found


async def _gone(child: int | None) -> None:
    """The sandbox's first process is gone: the kernel ends it only after all others."""
    if child is None:
        return
    until = asyncio.get_running_loop().time() + _GONE
    while processes.alive(child) and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - not our child
        await asyncio.sleep(0.001)


def lacking(error: NotRun) -> Verdict | None:
    """What the host ran out of, if that is what bwrap says; its "no space" is a limit of namespaces or mounts."""
    found = shortage_told(str(error))
    return None if found is None or found.dependency == DISK else found


async def probe() -> str:
    """Why bwrap cannot make a sandbox here; empty where it can.

    Raises NotRun or spawning.NotStarted where the host ran out of something: that says nothing of sandboxes.
    """
    if path() is None:
        return f"{PACKAGE} is not installed"
    streams = spawning.Streams(2000, None)
    try:
        async with asyncio.timeout(_PROBE):
            await run(Job(_PROBED, ["/true"]), streams)
    except NotRun as error:
        if lacking(error) is not None:
            raise
        return "" if "execvp" in str(error) else f"bwrap says: {error}"
    except (TimeoutError, spawning.NotStarted) as error:
        if error.__cause__ is not None and shortage(error.__cause__) is not None:
            raise
        return f"bwrap cannot be started: {error}"
    return ""


_PROBED = Sandbox(operations=(), environment={}, directory="/")
"""Nothing at all: bwrap comes as far as looking for the command if it can make a sandbox."""
