"""Real processes in the fake engine's containers: a root of their own, killed as a whole, as an engine's are."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from switchgear.steps.masking import Mask
from tests.patience import PATIENCE

T = TypeVar("T")

LIMIT = 102_399
"""Bytes of each output that an error carries, as measured."""
SHOWN = tuple(name for name in ("/usr", "/lib", "/lib64", "/bin", "/sbin") if Path(name).is_dir())


Ended = tuple[int, str, str]
"""Exit code and outputs."""


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
    ports: tuple[int, ...] = ()
    services: tuple[tuple[str, str], ...] = ()
    """Alias and id of each bound service."""
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
    hear: Callable[[str, int, bytes], None]
    """Told each write of an execution: its span, 1 or 2, and the bytes; none of them: that output has ended."""
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
    services: dict[str, asyncio.Task[Ended]] = field(default_factory=dict[str, asyncio.Task[Ended]])

    def empty(self) -> Path:
        """The root of an image."""
        root = Path(tempfile.mkdtemp(dir=self.folder))
        for name in ("tmp", "proc", "dev", "etc"):
            (root / name).mkdir()
        return root

    async def serve(self, name: str, container: Container, argv: list[str]) -> None:
        """Start a service, unless it runs, and wait until it listens on its ports. Raises Refused as an engine does."""
        if name not in self.services:
            self.services[name] = asyncio.create_task(self.run(container, argv, ""))
        task = self.services[name]
        while not await listening(container.ports):
            if task.done():
                del self.services[name]
                raise exec_error(argv, *task.result())
            await asyncio.sleep(0.01)

    async def beside(self, container: Container, work: Coroutine[Any, Any, T]) -> T:
        """The work, unless a bound service ends first, which ends it."""
        bound = {self.services[name]: alias for alias, name in container.services}
        step = asyncio.create_task(work)
        try:
            await asyncio.wait({step, *bound}, return_when=asyncio.FIRST_COMPLETED)
            for service, alias in bound.items():
                if service.done() and not service.cancelled():
                    code = service.result()[0]
                    how = f": exit code: {code}" if code else ""
                    raise Refused(f"bound service x1y2 (aliased as {alias}) exited{how}")
            return await step
        finally:
            step.cancel()
            await asyncio.wait({step})

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
            raise exec_error(argv, code, out, err)
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
            out, err = await self._communicate(process, container, stdin.encode())
            self.ended += 1
        finally:
            await self._ended(process, child)
        code = process.returncode or 0
        code = 128 - code if code < 0 else code
        return code, out.decode(errors="replace"), err.decode(errors="replace")

    async def _communicate(
        self, process: asyncio.subprocess.Process, container: Container, stdin: bytes
    ) -> tuple[bytes, bytes]:
        """Both outputs, each heard as it comes, without secrets."""
        span = os.urandom(8).hex()

        async def read(stream: asyncio.StreamReader | None, number: int) -> bytes:
            assert stream is not None
            mask, whole = Mask(text for _, text in container.secrets), b""
            while data := await stream.read(32 * 1024):
                whole += data
                if shown := mask.feed(data):
                    self.hear(span, number, shown)
            if shown := mask.close():
                self.hear(span, number, shown)
            self.hear(span, number, b"")
            return whole

        async def write() -> None:
            assert process.stdin is not None
            with suppress(ConnectionError):
                process.stdin.write(stdin)
                await process.stdin.drain()
            process.stdin.close()

        out, err, _ = await asyncio.gather(
            read(process.stdout, 1), read(process.stderr, 2), write()
        )
        await process.wait()
        return out, err

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
        async with asyncio.timeout(PATIENCE):
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


def exec_error(argv: list[str], code: int, out: str, err: str) -> Refused:
    """What an engine says of a command; of a service that ended well before it listened it says less."""
    if code == 0:
        return Refused("service exited before healthcheck")
    return Refused(
        f"exit code: {code} [traceparent:{os.urandom(16).hex()}-{os.urandom(8).hex()}]",
        _type="EXEC_ERROR",
        cmd=argv,
        exitCode=code,
        stdout=out[-LIMIT:].strip(),
        stderr=err[-LIMIT:].strip(),
    )


async def listening(ports: tuple[int, ...]) -> bool:
    """Whether a connection to each can be made: containers share the network of the host."""
    for port in ports:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
    return True


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
