"""Real processes in the fake engine's containers: a root of their own, killed as a whole, as an engine's are."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

LIMIT = 102_399
"""Bytes of each output that an error carries, as measured."""
SHOWN = tuple(name for name in ("/usr", "/lib", "/lib64", "/bin", "/sbin") if Path(name).is_dir())


class Refused(Exception):
    """An answer with an error: message, extensions, and the field that failed."""

    def __init__(self, message: str, **extensions: object) -> None:
        super().__init__(message)
        self.extensions = extensions


@dataclass(frozen=True)
class Container:
    """The state of a container between two calls."""

    root: Path
    environment: tuple[tuple[str, str], ...] = ()
    volatile: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    mounts: tuple[tuple[str, Path, bool], ...] = ()
    """Path inside, path of the host, whether it may be written."""
    workdir: str = "/"
    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""

    def where(self, path: str) -> Path:
        """The host's path of one inside."""
        inside = Path(os.path.normpath(Path(self.workdir) / path))
        for place, real, _ in self.mounts:
            if inside.is_relative_to(place):
                return real / inside.relative_to(place)
        return self.root / inside.relative_to("/")


@dataclass
class Host:
    """Where containers live, and which processes run."""

    folder: Path
    running: dict[asyncio.subprocess.Process, int] = field(
        default_factory=dict[asyncio.subprocess.Process, int]
    )
    status: dict[asyncio.subprocess.Process, int] = field(
        default_factory=dict[asyncio.subprocess.Process, int]
    )
    started: int = 0
    """Executions that really began."""
    ended: int = 0
    without_shell: bool = False
    services: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, asyncio.Task[None]])

    def empty(self) -> Path:
        """The root of an image."""
        root = Path(tempfile.mkdtemp(dir=self.folder))
        for name in ("tmp", "proc", "dev", "etc"):
            (root / name).mkdir()
        return root

    async def execute(
        self, before: Container, argv: list[str], stdin: str, expect: str
    ) -> Container:
        """Run a command on a copy of the root. Raises Refused as an engine does."""
        root = Path(tempfile.mkdtemp(dir=self.folder)) / "root"
        await asyncio.to_thread(shutil.copytree, before.root, root, symlinks=True)
        after = replace(before, root=root)
        code, out, err = await self.run(after, argv, stdin)
        for _, secret in before.secrets:
            out, err = (text.replace(secret, "***") if secret else text for text in (out, err))
        fine = code <= 127 or code >= 192
        if code and not (expect == "ANY" and fine):
            raise Refused(
                f"exit code: {code} [traceparent:{os.urandom(16).hex()}-{os.urandom(8).hex()}]",
                _type="EXEC_ERROR",
                cmd=argv,
                exitCode=code,
                stdout=out[-LIMIT:].rstrip("\n"),
                stderr=err[-LIMIT:].rstrip("\n"),
            )
        return replace(after, exit_code=code, stdout=out, stderr=err)

    async def run(self, container: Container, argv: list[str], stdin: str) -> tuple[int, str, str]:
        if self.without_shell and argv[0] == "sh":
            return 1, "", 'fork/exec /bin/sh: no such file or directory: exec: "sh"'
        starting = asyncio.ensure_future(self._start(container, argv))
        try:
            process, child = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Killed while it is being born, bubblewrap leaves its child behind.
            await self._ended(*await starting)
            raise
        try:
            out, err = await process.communicate(stdin.encode())
            self.ended += 1
        finally:
            await self._ended(process, child)
        code = process.returncode or 0
        code = 128 - code if code < 0 else code
        return code, out.decode(errors="replace"), err.decode(errors="replace")

    async def _start(
        self, container: Container, argv: list[str]
    ) -> tuple[asyncio.subprocess.Process, int]:
        """The process, and its first child: the init of a process namespace."""
        reading, writing = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *bwrap(container, argv, writing),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=(writing,),
        )
        os.close(writing)
        line = await asyncio.to_thread(_line, reading)
        # It writes there again when it ends.
        self.status[process] = reading
        self.running[process] = json.loads(line)["child-pid"] if line else 0
        self.started += 1
        return process, self.running[process]

    async def kill(self) -> None:
        """End everything, at once."""
        for process, child in [*self.running.items()]:
            _kill(process.pid, child)
        for service in self.services.values():
            service.cancel()
        await asyncio.gather(*self.services.values(), return_exceptions=True)
        self.services.clear()
        async with asyncio.timeout(20):
            while self.running:
                await asyncio.sleep(0.01)

    async def _ended(self, process: asyncio.subprocess.Process, child: int) -> None:
        """Its end, which a cancel does not interrupt."""
        await asyncio.shield(asyncio.ensure_future(self._end(process, child)))

    async def _end(self, process: asyncio.subprocess.Process, child: int) -> None:
        if process.returncode is None:
            _kill(process.pid, child)
            await process.wait()
        vars(process)["_transport"].close()
        self.running.pop(process, None)
        os.close(self.status.pop(process))


def _line(file: int) -> bytes:
    line = b""
    while b"\n" not in line and (more := os.read(file, 1)):
        line += more
    return line


def _kill(*pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def bwrap(container: Container, argv: list[str], status: int) -> list[str]:
    """The command in a root, a process namespace and an environment of its own."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/root",
        **dict(container.environment),
        **dict(container.volatile),
        **dict(container.secrets),
    }
    parts = ["bwrap", "--bind", str(container.root), "/"]
    for name in SHOWN:
        if os.path.islink(name):  # noqa: PTH114
            parts += ["--symlink", os.readlink(name), name]  # noqa: PTH115
        else:
            parts += ["--ro-bind", name, name]
    parts += ["--proc", "/proc", "--dev", "/dev"]
    for path, real, writable in container.mounts:
        parts += ["--bind" if writable else "--ro-bind", str(real), path]
    directory = container.workdir
    parts += ["--dir", directory, "--chdir", directory, "--clearenv"]
    for name, value in environment.items():
        parts += ["--setenv", name, value]
    parts += ["--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--die-with-parent"]
    return [*parts, "--json-status-fd", str(status), "--", *argv]
