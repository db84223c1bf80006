"""Reports how a process that serves an agent died: a small process beside it watches it, and outlives it.

`watch` forks. The child goes on as the agent, and tells through a pipe which instance it is; the parent passes its
error output on, keeps the end of it, and forwards signals. When the child dies without having left in order, the
parent publishes a crash report for whoever holds the child's tasks next. Then it ends as the child did.

Linux alone has what this needs: elsewhere, or where other threads run already, the agent serves unwatched. Whatever
this module imports is memory of each agent's second process, so it knows nothing of the runtime.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import sys
from typing import NamedTuple, NoReturn

KEPT = 8 * 1024
"""Bytes of error output that a report ends with."""
BACKLOG = 64 * 1024
"""Bytes of error output that wait for a slow reader; beyond them the agent waits too, but not for ever."""
PATIENCE = 1.0
"""Seconds in which a reader must take something; after that, what comes is dropped until it reads on."""
DRAIN = 1.0
"""Seconds to read on after the child's end: a process of its own may hold the pipe."""
REPORT = 2.0
"""Seconds that a broker may take to accept the report."""
BOUND = 4.0
"""Seconds after which the report is given up, whatever it waits for."""
FORWARDED = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
_HEARD = FORWARDED | {signal.SIGCHLD}
_PIECE = 4096
"""What a pipe takes at once when it takes anything (PIPE_BUF)."""
_SI_KERNEL = 0x80
"""The sender of a signal that a terminal sends: to the whole group, so the child has it already."""
_PR_SET_PDEATHSIG = 1

_line: int | None = None
"""In a watched child: where it tells its watcher who it is."""


def watch() -> None:
    """Go on in a child of this process, which from here on does nothing but watch it, and ends as it does.

    Call it early: what is imported and opened before it, the watcher keeps. Nothing happens where a process is
    watched already, or cannot be.
    """
    global _line  # noqa: PLW0603 - a process is watched or it is not
    if _line is not None or not _possible():
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a daemon may have closed it
            stream.flush()
    output, told = os.pipe(), os.pipe()
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    child = os.fork()
    if child:
        os.close(output[1])
        os.close(told[1])
        _Watcher(child, output[0], told[0]).run()
    os.close(output[0])
    os.close(told[0])
    os.dup2(output[1], 2)
    os.close(output[1])
    _die_with(parent)
    _line = told[1]
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_watched() -> bool:
    """Whether this process is the watched child."""
    return _line is not None


def process_id() -> int:
    """The process that whoever started this agent knows it by: the watcher's, where there is one."""
    return os.getpid() if _line is None else os.getppid()


def serving(url: str, agent: str, instance: str) -> None:
    """Tell the watcher who serves here, and where a report would go to."""
    _tell(f"{url}\0{agent}\0{instance}")


def left() -> None:
    """Tell the watcher that this instance has left in order: whatever happens from now on is no crash."""
    _tell("left")


def _tell(text: str) -> None:
    if _line is not None:
        os.write(_line, f"{text}\n".encode())


def _possible() -> bool:
    if sys.platform != "linux":
        return False
    try:
        os.fstat(2)
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - pathlib would stay in the watcher's memory
    except OSError:
        return False


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when the watcher dies, and say where it was when it dies itself."""
    import ctypes
    import faulthandler

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    if not faulthandler.is_enabled():
        faulthandler.enable(2)


class Served(NamedTuple):
    """What the child told of itself."""

    url: str = ""
    agent: str = ""
    instance: str = ""
    has_left: bool = False


def served(told: bytes) -> Served:
    """What the child's lines say; the newest connection counts."""
    found = Served()
    for line in told.decode().splitlines():
        url, agent, instance = [*line.split("\0"), "", ""][:3]
        found = found._replace(has_left=True) if line == "left" else Served(url, agent, instance)
    return found


class _Watcher:
    """The parent: one thread for signals, one for the child's error output."""

    def __init__(self, child: int, output: int, told: int) -> None:
        self._child = child
        self._output = output
        self._told = told
        self._tail = Tail()

    def run(self) -> NoReturn:
        """Until the child's end; ends this process."""
        code = 1
        try:
            reading = _thread.allocate_lock()
            reading.acquire()
            _thread.start_new_thread(self._read, (reading,))
            code = self._wait()
            reading.acquire(timeout=DRAIN)
            self._report(code)
        finally:
            _end(code)

    def _wait(self) -> int:
        """Forward signals until the child has ended; returns its exit code, negative for a signal."""
        while True:
            try:
                # Any: as the first process of a container, this one inherits orphans.
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    if ended[0] == self._child:
                        return os.waitstatus_to_exitcode(ended[1])
            except ChildProcessError:
                return 1
            heard = signal.sigwaitinfo(_HEARD)
            from_terminal = heard.si_signo == signal.SIGINT and heard.si_code == _SI_KERNEL
            if heard.si_signo in FORWARDED and not from_terminal:
                os.kill(self._child, heard.si_signo)

    def _read(self, done: _thread.LockType) -> None:
        """Pass the child's error output on, until the last holder of the pipe closes it."""
        backlog = Backlog()
        is_open = True
        while is_open or backlog.waiting:
            poll = select.poll()
            if is_open and not backlog.is_full:
                poll.register(self._output, select.POLLIN)
            if backlog.waiting:
                poll.register(2, select.POLLOUT)
            ready = poll.poll(PATIENCE * 1000 if backlog.is_full else None)
            if not ready:
                backlog.give_up()
            for descriptor, _ in ready:
                if descriptor == 2:  # noqa: PLR2004 - the error output
                    backlog.pass_on()
                else:
                    data = os.read(self._output, 65536)
                    is_open = bool(data)
                    self._tail.add(data)
                    backlog.add(data)
        done.release()

    def _report(self, code: int) -> None:
        """Publish how the child died, unless it had left in order, or never served."""
        os.set_blocking(self._told, False)
        try:
            found = served(os.read(self._told, 65536))
        except BlockingIOError:
            return  # a process that it started holds the pipe
        if not found.instance or found.has_left:
            return
        reported = _thread.allocate_lock()
        reported.acquire()

        def report() -> None:
            from switchgear.agent import crash_publishing

            try:
                crash_publishing.publish(
                    found.url,
                    found.agent,
                    found.instance,
                    code,
                    self._tail.text(),
                    seconds=REPORT,
                )
            finally:
                reported.release()

        # In a thread of its own: looking a name up cannot be interrupted.
        _thread.start_new_thread(report, ())
        reported.acquire(timeout=BOUND)


class Tail:
    """The end of what was written."""

    def __init__(self) -> None:
        self._kept = b""

    def add(self, data: bytes) -> None:
        """Keep the end of this too."""
        self._kept = (self._kept + data)[-KEPT:]

    def text(self) -> str:
        """The end, from the beginning of a line where it was cut."""
        text = self._kept.decode("utf-8", "replace")
        if len(self._kept) == KEPT:
            text = text.partition("\n")[2] or text
        return text.strip()


class Backlog:
    """What waits to be passed on to the error output: bounded, since its reader may be slow, or read no more."""

    def __init__(self, descriptor: int = 2) -> None:
        """Passed on to this descriptor."""
        self._descriptor = descriptor
        self._waiting = b""
        self._dropped = 0
        self._given_up = False
        self._is_deaf = False

    @property
    def waiting(self) -> bool:
        """Whether there is something to pass on."""
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether the reader is to be waited for before more is added."""
        return len(self._waiting) >= BACKLOG and not self._given_up

    def give_up(self) -> None:
        """Drop what comes, until the reader takes something again."""
        self._given_up = True

    def add(self, data: bytes) -> None:
        """Let it wait, or drop it."""
        if self._given_up:
            self._dropped += len(data)
        elif not self._is_deaf:
            self._waiting += data

    def pass_on(self) -> None:
        """Write as much as surely does not block; once the reader has left, nothing waits any more."""
        try:
            count = os.write(self._descriptor, self._waiting[:_PIECE])
        except OSError:
            self._is_deaf, self._waiting = True, b""
            return
        self._waiting = self._waiting[count:]
        if self._dropped:
            self._waiting += f"\n[{self._dropped} bytes of error output dropped]\n".encode()
        self._given_up, self._dropped = False, 0


def _end(code: int) -> NoReturn:
    """End as the child did."""
    if code < 0:
        import resource

        number = signal.Signals(-code)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has written one, if any
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        code = (
            128 - code
        )  # as a shell says it, where signals do not end the first process of a container
    os._exit(code)
