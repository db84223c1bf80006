"""The embedded server: one nats-server as a child process, for development and tests.

It reads the reference configuration (`nats.conf`, the same file that a real server would be given)
with a few keys overruled, listens on loopback, and owns a directory: the store, its lock, its log.
It never outlives its owner: on Linux the kernel ends it when the thread that started it dies;
elsewhere a server left over still holds the lock on the store, so that the next one refuses to
start on top of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from switchgear import errors
from switchgear.server.binary import find_binary

if TYPE_CHECKING:
    from types import TracebackType

Durability = Literal["standard", "durable"]
"""What an acknowledged write survives: the server's death, or ("durable") a power loss too."""

SYNC_INTERVAL: dict[Durability, str] = {"standard": '"2m"', "durable": "always"}
"""Each profile's `sync_interval`, as it stands in the server's configuration."""

REFERENCE = Path(__file__).with_name("nats.conf")
"""The configuration at the root of the repository; here a symbolic link, in a wheel a copy."""

POLL = timedelta(milliseconds=5)
"""Between two looks at a child that starts or stops; a start takes about 40 ms."""

LOCK_PATIENCE = timedelta(seconds=1)
"""How long a start waits for a server on its way out, such as one whose owner was killed."""

LOG_TAIL = 5
"""Lines of the log that an error quotes at most."""

# Runs between fork and the server: asks the kernel to end it with its parent, then becomes it,
# keeping its pid. A pre-exec function would do the same but can deadlock in a process with threads.
TIED_TO_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that started this server is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedServer:
    """One nats-server process and the directory it owns; `async with` starts it and stops it.

    The object needs an event loop only while a method is awaited, and may be used from one loop
    after another. On Linux the thread that starts the server must live as long as the server shall.
    """

    def __init__(
        self,
        store_dir: Path | None = None,
        *,
        port: int | None = None,
        durability: Durability = "standard",
        settings: str = "",
        start_timeout: timedelta = timedelta(seconds=30),
        stop_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        """Describe a server; nothing runs before `start`.

        `store_dir` keeps streams, log and lock (created if missing); without one they live in a
        temporary directory that goes when the server stops. `port` None means any free port, found
        without a race, and kept over `restart`. `settings` is server configuration appended last,
        so that it overrules everything else. `start_timeout` covers reading the streams back (4.4 s
        for 2.4 million subjects). After `stop_timeout` an orderly stop becomes a kill.
        """
        self._kept_dir = None if store_dir is None else store_dir.absolute()
        self._port = port
        self._durability: Durability = durability
        self._settings = settings
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._dir: Path | None = None
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._binary: Path | None = None
        self._monitoring_url = ""

    async def __aenter__(self) -> Self:
        """Start the server."""
        await self.start()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        await self.stop()

    @property
    def url(self) -> str:
        """Where clients connect; the same after `restart`. Empty before the first start."""
        return "" if self._port is None else f"nats://127.0.0.1:{self._port}"

    @property
    def monitoring_url(self) -> str:
        """Where the server answers /varz, /jsz and the like; a new port with each start."""
        return self._monitoring_url

    @property
    def pid(self) -> int:
        """The server's process id; raises `ServerFailed` when it does not run."""
        if self._process is None or self._process.poll() is not None:
            msg = "the embedded server does not run"
            raise errors.ServerFailed(msg, fix="start it")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def store_dir(self) -> Path:
        """The directory of the running server."""
        if self._dir is None:
            msg = "the embedded server has no directory yet"
            raise errors.ServerFailed(msg, fix="start it")
        return self._dir

    @property
    def log_path(self) -> Path:
        """The server's log; kept over restarts, and after the end if a `store_dir` was given."""
        return self.store_dir / "server.log"

    async def start(self) -> None:
        """Start the server and return when it takes connections, streams included.

        Raises `ServerMissing` without a binary; `ServerFailed` when the store is in use by another
        server, when the server ends at once (a port that is taken, a faulty setting) or is not
        ready in time.
        """
        if self.running:
            msg = "the embedded server runs already"
            raise errors.ServerFailed(msg, fix="stop it first, or use restart")
        self._binary = find_binary()
        try:
            await self._prepare()
            self._spawn()
            await self._ready()
        except BaseException:
            # A cancelled start must leave no process either.
            self.kill()
            self._release()
            raise

    async def stop(self) -> None:
        """Stop the server, orderly (it writes all to disk) or, after `stop_timeout`, by force."""
        process = self._process
        try:
            if process is not None and process.poll() is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    await self._ended(process)
        finally:
            self.kill()
            self._release()

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; store and lock stay, for `restart`."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        process.wait()
        self._forget_ports(process.pid)

    async def restart(self) -> None:
        """Start again at the same address with the same store; stop first if it runs."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await self._ended(process)
            self.kill()
        await self.start()

    async def _prepare(self) -> None:
        """Take the directory and write the configuration into it."""
        if self._dir is None:
            self._dir = self._kept_dir or Path(tempfile.mkdtemp(prefix="switchgear-"))
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = await _lock(self._dir)
        self._write_config(self._dir)

    @property
    def _config(self) -> Path:
        return self.store_dir / "server.conf"

    def _write_config(self, directory: Path) -> None:
        """Write the configuration; settings may carry keys, so only the owner may read it."""
        config = os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(config, "w", encoding="utf-8") as file:
            file.write(self._configuration(directory))

    def _configuration(self, directory: Path) -> str:
        """Return the reference configuration and our keys: of a key given twice the last counts."""
        reference = REFERENCE.read_text(encoding="utf-8")
        place = json.dumps(str(directory), ensure_ascii=False)
        log = json.dumps(str(directory / "server.log"), ensure_ascii=False)
        return f"""{reference}
# --- overruled by the embedded server ---
host: "127.0.0.1"
port: {-1 if self._port is None else self._port}
http: "127.0.0.1:-1"
ports_file_dir: {place}
log_file: {log}
log_size_limit: 16MB
jetstream {{
  store_dir: {place}
  max_file_store: 10GB
  max_memory_store: 256MB
  sync_interval: {SYNC_INTERVAL[self._durability]}
}}
{self._settings}
"""

    def _spawn(self) -> None:
        """Start the process; it inherits the lock: the store is locked while anyone may write."""
        command = [str(self._binary), "-c", str(self._config)]
        if sys.platform == "linux":
            shim = [sys.executable, "-I", "-S", "-c", TIED_TO_PARENT, str(os.getpid())]
            command = [*shim, *command]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=() if self._lock is None else (self._lock,),
                # Ctrl-C in a terminal must reach us only: agents drain before their server goes.
                start_new_session=True,
            )

    async def _ready(self) -> None:
        """Wait for the ports file, which the server writes when it listens, and read it."""
        process = self._process
        limit = self._start_timeout.total_seconds()
        try:
            async with asyncio.timeout(limit):
                while not self._read_ports():
                    if process is None or process.poll() is not None:
                        msg = "the embedded server ended while it started"
                        raise errors.ServerFailed(msg, why=self._last_words(), fix=self._log_fix())
                    await asyncio.sleep(POLL.total_seconds())
        except TimeoutError:
            msg = f"the embedded server was not ready within {limit:g} s"
            raise errors.ServerFailed(msg, why=self._last_words(), fix=self._log_fix()) from None

    async def _ended(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of `process`; TimeoutError after `stop_timeout`."""
        async with asyncio.timeout(self._stop_timeout.total_seconds()):
            while process.poll() is None:  # noqa: ASYNC110 - works without a child watcher
                await asyncio.sleep(POLL.total_seconds())

    def _read_ports(self) -> bool:
        """Take the addresses from the ports file; False while it is missing or half written."""
        if self._process is None:
            return False
        try:
            ports = json.loads(self._ports_file(self._process.pid).read_bytes())
            self._port = int(ports["nats"][0].rpartition(":")[2])
            self._monitoring_url = str(ports["monitoring"][0])
        except (FileNotFoundError, ValueError, LookupError):
            return False
        return True

    def _ports_file(self, pid: int) -> Path:
        name = "nats-server" if self._binary is None else self._binary.name
        return self.store_dir / f"{name}_{pid}.ports"

    def _forget_ports(self, pid: int) -> None:
        """Remove the ports file, which a killed server leaves behind."""
        if self._dir is not None:
            self._ports_file(pid).unlink(missing_ok=True)

    def _release(self) -> None:
        """Give the directory back; a temporary one goes, a given one keeps its streams and log."""
        self._process = None
        if self._dir is not None:
            self._config.unlink(missing_ok=True)
            if self._kept_dir is None:
                shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _last_words(self) -> str:
        """Return the end of the log, which says why a server did not start."""
        log = self.log_path.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in log.splitlines() if line.strip()]
        fatal = [line for line in lines if "[FTL]" in line]
        return " | ".join((fatal or lines)[-LOG_TAIL:]) or "it wrote no log"

    def _log_fix(self) -> str:
        """Name the log where there will be one to read."""
        if self._kept_dir is None:
            return "change what the server's last lines above complain about"
        return f"read {self.log_path}"


async def _lock(directory: Path) -> int:
    """Lock `directory` and return the lock's descriptor; `ServerFailed` if another keeps it."""
    path = directory / "server.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        async with asyncio.timeout(LOCK_PATIENCE.total_seconds()):
            while not _try_lock(lock):  # noqa: ASYNC110 - a lock of another process
                await asyncio.sleep(POLL.total_seconds())
    except BaseException as error:
        os.close(lock)
        if not isinstance(error, TimeoutError):
            raise
        msg = f"the store {directory} is in use by another server"
        fix = f"stop that server (`fuser {path}` names its process), or choose another directory"
        raise errors.ServerFailed(msg, fix=fix) from None
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
