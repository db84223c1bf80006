"""Services beside a step in an engine: started before it, within their time, and stopped with it.

Below the Dagger executor. An engine waits for ports for ever, and cannot stop what it waits for: so the service's own
script ends it when its time is over. Of a service that ends later an engine tells the exit code, and not what it wrote.
"""

from __future__ import annotations

import asyncio
import math
import re
import shlex
from collections.abc import Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from switchgear.errors import ServiceFailed
from switchgear.resilience.dagger_failures import NO_PROGRAM
from switchgear.steps.executors.dagger import script
from switchgear.steps.executors.dagger.errors import facts
from switchgear.steps.executors.dagger.session import to_its_end
from switchgear.steps.service_failure import ended, silent, unstartable

if TYPE_CHECKING:
    import dagger

    from switchgear.steps.executors.dagger.link import Link
    from switchgear.steps.spec import Service

T = TypeVar("T")

_STOPPING = 5.0
"""Seconds to end the services of a step."""
_DEAF = "switchgear: nothing listens on port "
"""What the script writes before it ends the service."""
_EXITED = re.compile(r"bound service .*?exited(?:.*?exit code: (\d+))?")
_EARLY = "exited before healthcheck"

_OWN = f"0A??????7F:*|0A{'0' * 24}01000000:*"
"""Listeners of loopback addresses, as /proc of most machines writes them: no other container reaches them."""
_WATCH = """\
( { n=0
while :; do
  d=; for q in @PORTS@; do y=
    for t in /proc/net/tcp /proc/net/tcp6; do
      [ ! -r $t ] || while read -r _ a _ s _; do case $s$a in @OWN@) ;; 0A*:$q) y=1;; esac; done <$t
    done
    [ -n "$y" ] || d=$q
  done
  [ -n "$d" ] || exit 0
  [ $n -lt @SECONDS@ ] || break
  sleep 1; n=$((n+1)); kill -0 $$ || exit 0
done 2>/dev/null
[ -r /proc/net/tcp ] || exit 0
echo "@DEAF@$((0x$d))" >&2; kill -9 $$
} </dev/null >/dev/null & )
"""
"""Until each port (as /proc writes it) has a listener, in a process that is no child of the service."""


def argv(service: Service) -> list[str]:
    """How a service is started: its last command takes the shell's place."""
    *before, last = (shlex.join(argv) for argv in service.spec.commands)
    text = script.limits(service.spec) + " && ".join([*before, f"exec {last}"])
    if service.ports:
        ports = " ".join(f"{port:04X}" for port in service.ports)
        watch = _WATCH.replace("@PORTS@", ports).replace("@DEAF@", _DEAF).replace("@OWN@", _OWN)
        text = watch.replace("@SECONDS@", str(math.ceil(service.start_seconds))) + text
    return ["sh", "-c", text]


class Services:
    """Those of one step."""

    def __init__(self, link: Link, key: str, grace: timedelta) -> None:
        """`grace`: how much longer than its script the engine may take to tell that a service did not listen."""
        self._link = link
        self._key = key
        self._grace = grace.total_seconds()
        self._all: list[tuple[Service, dagger.Service]] = []
        self._begun = False

    def add(self, service: Service, made: dagger.Service) -> dagger.Service:
        """One more, which is not started yet."""
        self._all.append((service, made))
        return made

    async def start(self) -> None:
        """Return when each listens on its ports. Raises ServiceFailed, and what the SDK raises."""
        self._begun = bool(self._all)
        # None is left on its way: an engine cannot stop what it is starting.
        started = await asyncio.gather(
            *(self._start(*one) for one in self._all), return_exceptions=True
        )
        for one in started:
            if isinstance(one, BaseException):
                raise one

    async def _start(self, service: Service, made: dagger.Service) -> None:
        import dagger

        timer = asyncio.timeout(service.start_seconds + self._grace)
        try:
            async with timer:
                await made.start()
        except TimeoutError:
            if not timer.expired():
                raise
            raise silent(self._key, service, next(iter(service.ports), None), None) from None
        except dagger.ExecError as error:
            raise _of_start(self._key, service, error) from error
        except dagger.QueryError as error:
            if _EARLY not in str(error):
                raise
            raise ended(self._key, service.name, 0, None, began=False) from error

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work; an engine ends it when a service ends. Raises ServiceFailed for that."""
        import dagger

        try:
            return await work
        except dagger.QueryError as error:
            found = self._ended(str(error))
            if found is None:
                raise
            raise found from error

    def _ended(self, message: str) -> ServiceFailed | None:
        told = _EXITED.search(message)
        if told is None or not self._all:
            return None
        names = [one.name for one, _ in self._all]
        named = [name for name in names if re.search(rf"[ (]{name}[,)]", told[0])]
        code = None if told[1] is None else int(told[1])
        return ended(self._key, (named or names)[0], code, None, began=True)

    async def stop(self) -> None:
        """End them now: their processes would outlive a cancelled step until the session closes."""
        if not self._begun or self._link.lost.done():
            return

        async def stop() -> None:
            try:
                async with asyncio.timeout(_STOPPING):
                    await asyncio.gather(*(made.stop(kill=True) for _, made in self._all))
            except Exception as error:  # noqa: BLE001  # whatever it is: only the end of the session ends them now
                why = facts(error).message or type(error).__name__
                self._link.lose(f"a step's services could not be stopped: {why}")

        await to_its_end(stop())


def _of_start(key: str, service: Service, error: dagger.ExecError) -> ServiceFailed:
    """What the end of a service means that did not listen yet."""
    before, deaf, port = error.stderr.rpartition(_DEAF)
    if deaf:
        return silent(key, service, int(port.split()[0]), before)
    if error.exit_code == 1 and NO_PROGRAM in error.stderr:
        return unstartable(key, service.name, error.stderr.strip())
    return ended(key, service.name, error.exit_code, error.stderr or error.stdout, began=False)
