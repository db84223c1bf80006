"""Services of a process step: started before it, watched while it runs, ended with it.

Below the process executor, which arranges what each sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from switchgear.steps import bubblewrap, spawning
from switchgear.steps.service_failure import died, ended, silent, unstartable

if TYPE_CHECKING:
    from switchgear.steps.arranging import Given
    from switchgear.steps.network import Network
    from switchgear.steps.spec import Service

T = TypeVar("T")

_LOOK_AGAIN = 0.01
"""Seconds between two looks at who listens."""
_SEEN = 0.2
"""Seconds until the end of a process is seen for sure."""


class Served(NamedTuple):
    """A service that is ready to start."""

    service: Service
    jobs: Sequence[bubblewrap.Job]
    """One after the other; the last is what serves."""
    streams: spawning.Streams


class Beside:
    """The services of one step."""

    def __init__(
        self,
        key: str,
        running: Mapping[asyncio.Task[int], Served],
        network: Network | None = None,
        hosts: str = "",
    ) -> None:
        """`hosts`: a file that gives their names."""
        self._key = key
        self._running = running
        self._network = network
        self._hosts = hosts

    def joined(self, given: Given) -> Given:
        """What is given to a step that meets them."""
        if self._network is None:
            return given
        return given._replace(hosts=self._hosts, entering=self._network.entering)

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, which ends when a service does. Raises ServiceFailed."""
        if not self._running:
            return await work
        step = asyncio.create_task(work)
        try:
            await asyncio.wait({step, *self._running}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                self._check(began=True)
            return await step
        finally:
            await _ended({step})

    async def ends(self) -> tuple[str, ...]:
        """Those that have ended, in words: a step that loses its service may fail before anybody sees why."""
        if self._running:
            await asyncio.wait(self._running, timeout=_SEEN, return_when=asyncio.FIRST_COMPLETED)
        return tuple(
            died(one.service.name, task.result(), _words(one.streams))
            for task, one in self._running.items()
            if task.done() and task.exception() is None
        )

    async def listen(self) -> None:
        """Return when each listens on its ports. Raises ServiceFailed."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        waiting = [one for one in self._running.values() if one.service.ports]
        while waiting:
            self._check(began=False)
            heard = self._network.listening() if self._network is not None else set[int]()
            waiting = [one for one in waiting if not heard.issuperset(one.service.ports)]
            for one in waiting:
                if loop.time() - since > one.service.start_seconds:
                    missing = [port for port in one.service.ports if port not in heard]
                    raise silent(self._key, one.service, missing[0], _words(one.streams))
            if waiting:
                await asyncio.sleep(_LOOK_AGAIN)

    def _check(self, *, began: bool) -> None:
        """Raises ServiceFailed for one that has ended."""
        for task, one in self._running.items():
            if not task.done():
                continue
            error = task.exception()
            if error is not None:
                raise unstartable(self._key, one.service.name, str(error), began=began) from error
            words = _words(one.streams)
            raise ended(self._key, one.service.name, task.result(), words, began=began)


@asynccontextmanager
async def beside(
    key: str, network: Network, hosts: str, served: Sequence[Served]
) -> AsyncGenerator[Beside]:
    """The services, as long as this is entered; all listen at its beginning. Raises ServiceFailed."""
    running = {asyncio.create_task(_serve(one), name=one.service.name): one for one in served}
    try:
        services = Beside(key, running, network, hosts)
        await services.listen()
        yield services
    finally:
        await _ended(running)


async def _serve(one: Served) -> int:
    """The exit code of the command that ended it."""
    code = 0
    for job in one.jobs:
        code = await bubblewrap.run(job, one.streams)
        if code:
            break
    one.streams.close()
    return code


async def _ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel them, and wait until nothing of them runs."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at: whoever left them has its own


def _words(streams: spawning.Streams) -> str:
    """What it said last: where it writes no errors, its output may tell."""
    return streams.stderr or streams.stdout
