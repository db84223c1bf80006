"""Following a run while it happens: a live tree on a terminal, plain lines in a pipe, on the error output.

The feed is subscribed before anything is submitted, so nothing is missed; entries of other runs of the same
owner that arrive meanwhile are left out as soon as the root is known.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

from switchgear.cli.run_tree import RunTree, Seen
from switchgear.clock import SYSTEM
from switchgear.contract import codec, limits, subjects
from switchgear.contract.queries import Progress
from switchgear.errors import ProtocolError, SwitchgearError
from switchgear.tasks.live import stored_of

if TYPE_CHECKING:
    from rich.live import Live

    from switchgear.bus.port import Message, Subscription
    from switchgear.cli.output import Output
    from switchgear.client.mesh import Mesh
    from switchgear.contract.stored import Stored

_REFRESH = 8
"""Frames a second."""
_LAST_ENTRY = 1.0
"""Seconds to wait for the feed to show the end that the result already told."""


class Following:
    """Shows one run from its submission to its end."""

    def __init__(self, mesh: Mesh, output: Output) -> None:
        self.tree: RunTree | None = None
        self._mesh = mesh
        self._output = output
        self._early: list[Stored | Progress] = []
        self._subscriptions: list[Subscription] = []
        self._ended = asyncio.Event()
        self._live: Live | None = None

    async def __aenter__(self) -> Self:
        owner, core = self._mesh.principal, self._mesh.bus.core
        reports = subjects.progress(subjects.scope("*", owner, "*"))
        self._subscriptions = [
            await core.subscribe(subjects.live(owner), self._entry),
            await core.subscribe(reports, self._progress),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_live()
        for subscription in self._subscriptions:
            with contextlib.suppress(SwitchgearError):
                await subscription.unsubscribe()

    def root(self, task: str) -> None:
        """Show this run; what was heard before counts too."""
        self.tree = RunTree(task)
        if self._output.is_live:
            self._open_live()
        early, self._early = self._early, []
        for one in early:
            self._take(one)

    async def finish(self) -> None:
        """Wait a moment for the feed to catch up with the end, then draw for the last time."""
        if self.tree is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_ENTRY):
                    await self._ended.wait()
        self._close_live()

    def _entry(self, message: Message) -> None:
        stored = stored_of(message)
        if stored is not None:
            self._take(stored)

    def _progress(self, message: Message) -> None:
        with contextlib.suppress(ProtocolError):
            self._take(codec.decode(message.data, Progress, limit=limits.MAX_PROGRESS))

    def _take(self, one: Stored | Progress) -> None:
        if self.tree is None:
            self._early.append(one)
            return
        seen = self.tree.report(one) if isinstance(one, Progress) else self.tree.entry(one)
        if seen is None:
            return
        if self._live is None:
            self._tell(seen)
        if self.tree.ended:
            self._ended.set()

    def _tell(self, seen: Seen) -> None:
        from switchgear.cli.render import tree

        if not self._output.as_json and self.tree is not None and self.tree.start is not None:
            self._output.say(tree.happened(seen, self.tree.start))

    def _open_live(self) -> None:
        from rich.live import Live

        self._live = Live(
            get_renderable=self._draw,
            console=self._output.console(),
            refresh_per_second=_REFRESH,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _close_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> Any:
        from switchgear.cli.render import tree

        return tree.run(self.tree or RunTree(""), SYSTEM.now())
