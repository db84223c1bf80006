"""A network of a step and its services: a loopback of their own, and nothing else.

Below the process executor. A namespace lives as long as a process in it: one that only waits holds this one open, and
what is to join enters it by nsenter before its sandbox is made.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from switchgear.steps import bubblewrap, spawning

NSENTER = "nsenter"
"""The program of util-linux that enters namespaces."""

_NET = "/proc/sys/net"
"""Settings of the network that whoever reads them is in."""
_HOLDER = (
    f"{{ echo 0 >{_NET}/ipv4/ip_unprivileged_port_start; }} 2>&-; echo $$; exec sleep 2147483647"
)
"""Services have no capabilities, and may listen on port 80 all the same: nobody else is in it."""
_WORDS = 2000
"""Bytes kept of what goes wrong at the start."""
_LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp."""


class NoNetwork(bubblewrap.NotRun):
    """It could not be made; the text says why."""


class Network(NamedTuple):
    """A network that is open."""

    holder: int
    """The process that keeps it."""

    @property
    def entering(self) -> tuple[str, ...]:
        """What to put before a command that is to run in it."""
        spaces = f"/proc/{self.holder}/ns"
        return (
            shutil.which(NSENTER) or NSENTER,
            f"--user={spaces}/user",
            f"--net={spaces}/net",
            "--preserve-credentials",
            "--",
        )

    def listening(self) -> set[int]:
        """TCP ports on which somebody listens in it: a connection would be made, and none is."""
        ports: set[int] = set()
        for name in ("tcp", "tcp6"):
            try:
                ports |= listening_ports(Path(f"/proc/{self.holder}/net/{name}").read_text("ascii"))
            except OSError:  # a kernel without IPv6, or a holder that is gone
                continue
        return ports


def listening_ports(table: str) -> set[int]:
    """Ports with a listener in the text of /proc/net/tcp or tcp6. Pure."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENS}


@asynccontextmanager
async def opened() -> AsyncGenerator[Network]:
    """A network as long as this is entered. Raises NoNetwork."""
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def hear(stream: str, line: str) -> None:
        if stream == "stdout" and line.isdigit() and not told.done():
            told.set_result(int(line))

    streams = spawning.Streams(_WORDS, hear)
    holder = asyncio.ensure_future(spawning.run(_program(), streams))
    try:
        await asyncio.wait({holder, told}, return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            error = holder.exception()
            raise NoNetwork(streams.stderr.strip() or str(error or "it ended")) from error
        yield Network(told.result())
    finally:
        holder.cancel()
        await asyncio.wait({holder})


def _program() -> spawning.Program:
    """No process namespace: it tells the id that the host knows it by."""
    options = ("--unshare-user", "--unshare-net", "--die-with-parent")
    rights = ("--cap-drop", "ALL", "--cap-add", "CAP_NET_ADMIN")
    files = ("--ro-bind", "/", "/", "--bind-try", _NET, _NET)
    argv = (bubblewrap.path() or bubblewrap.PROGRAM, *options, *rights, *files, "sh", "-c", _HOLDER)
    return spawning.Program(argv, {"PATH": os.environ.get("PATH", os.defpath)})
