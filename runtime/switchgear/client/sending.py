"""From an opening entry to a task that stands: appended once, followed from before its first entry."""

from __future__ import annotations

import asyncio
from typing import Any

from switchgear.bus.port import Appended, Bus, Refused
from switchgear.errors import Overloaded, Unavailable
from switchgear.tasks import submission
from switchgear.tasks.handle import TaskHandle
from switchgear.tasks.watch import Followed, Watch


class Sender:
    """Sends the openings of one client."""

    def __init__(self, bus: Bus, watch: Watch) -> None:
        self._bus = bus
        self._watch = watch

    async def send(
        self, opened: submission.Opening, handle: TaskHandle[Any], *, live: bool = False
    ) -> asyncio.Future[None]:
        """Send; the future ends when the task stands. `live`: its chunks are kept from its beginning.

        It ends with Conflict, Overloaded, Unavailable or OutcomeUnknown.
        """
        followed = self._watch.follow(opened.scope, fresh=True)
        handle.expect(followed.ended)
        stands: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if live:
            try:
                await handle.listen(followed.ended)
            except BaseException:
                self._watch.forget(opened.scope)
                raise
        answer = asyncio.ensure_future(
            self._bus.ledger.append(opened.subject, opened.body, scope=opened.scope, expect=0)
        )
        answer.add_done_callback(lambda said: self._answered(opened, said, followed, stands))
        return stands

    def _answered(
        self,
        opened: submission.Opening,
        answer: asyncio.Future[Appended | Refused],
        followed: Followed,
        stands: asyncio.Future[None],
    ) -> None:
        """The broker's answer to a submission; only a refusal needs reading."""
        if answer.cancelled() or stands.cancelled():
            self._watch.forget(opened.scope)
            return
        error = answer.exception()
        if error is not None:
            self._watch.forget(opened.scope)
            stands.set_exception(_overloaded(error))
            return
        said = answer.result()
        if isinstance(said, Appended):
            self._watch.begun(followed, opened.acknowledged(said.sequence))
            stands.set_result(None)
        else:
            confirmed = asyncio.ensure_future(self._confirm(opened, said, followed))
            confirmed.add_done_callback(lambda done: _pass_on(done, stands))

    async def _confirm(
        self, opened: submission.Opening, answer: Appended | Refused, followed: Followed
    ) -> None:
        try:
            await submission.confirm(self._bus, opened, answer)
        except BaseException:
            self._watch.forget(opened.scope)  # another submission with this key may be followed
            raise
        self._watch.read(followed)


def _overloaded(error: BaseException) -> BaseException:
    """What a submitter meets: a full ledger is no failure of the broker."""
    if not isinstance(error, Unavailable) or not error.full:
        return error
    return Overloaded("the ledger is full", why=error.why, retry_after=error.retry_after)


def _pass_on(done: asyncio.Future[None], to: asyncio.Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if to.done():
        return
    if done.cancelled():
        to.cancel()
    elif error is not None:
        to.set_exception(_overloaded(error))
    else:
        to.set_result(None)
