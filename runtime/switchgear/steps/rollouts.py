"""The rollout rules of all capabilities, as they stand: a watch on the documents that hold them.

A change reaches every agent within milliseconds, and holds for each step that begins after it. Without a broker the
rules that were known last go on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from switchgear.contract import codec, limits, subjects
from switchgear.contract.rollout import Rollout
from switchgear.errors import SwitchgearError

if TYPE_CHECKING:
    from collections.abc import Callable

    from switchgear.bus.port import Consuming, Documents, Kept

log = logging.getLogger(__name__)


class RolloutTable:
    """The rules by capability. Watches from the first question on; `close` ends that."""

    def __init__(self, documents: Documents, changed: Callable[[str], None] | None = None) -> None:
        """`changed` is told the capability whose rules are others now; it must return at once."""
        self._documents = documents
        self._changed = changed
        self._known: dict[str, Rollout] = {}
        self._watch: Consuming | None = None
        self._begun = asyncio.Lock()

    async def find(self, capability: str) -> Rollout | None:
        """The rules of this capability; None where it has none. Raises Unavailable before they could ever be read."""
        if self._watch is None:
            async with self._begun:
                if self._watch is None:
                    self._watch = await self._documents.watch(subjects.rollout("*"), self._heard)
        return self._known.get(capability)

    async def close(self) -> None:
        """Hear no more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.end()

    def _heard(self, kept: Kept) -> None:
        capability = kept.subject.rpartition(".")[2]
        found = read(kept)
        if found is not None:
            self._known[capability] = found
        elif kept.data is None:
            self._known.pop(capability, None)
        else:
            return  # one that cannot be read changes nothing
        if self._changed is not None:
            self._changed(capability)


def read(kept: Kept | None) -> Rollout | None:
    """The rules that a document holds; None, and logged, for one that cannot be read or stands elsewhere."""
    if kept is None or kept.data is None:
        return None
    try:
        found = codec.decode(kept.data, Rollout, limit=limits.MAX_ENTRY)
    except SwitchgearError as error:
        log.error("rollout.unreadable %s: %s", kept.subject, error)
        return None
    if subjects.rollout(found.capability) != kept.subject:
        log.error("rollout.misplaced %s", kept.subject)
        return None
    return found
