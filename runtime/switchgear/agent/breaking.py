"""What an instance's breakers mean for what it pulls, and for a task that one of them refused (rules 6 and 9).

A capability whose attempts need what a breaker refuses is not pulled here: its tasks stay for other instances. When
the breaker lets probes through, as many attempts are pulled as there are probes; one that does not come to an answer
makes room for another. A refused attempt is handed back, and counts as none.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from switchgear.agent.attempt import CancelledMeanwhile, Lost, Suspended
from switchgear.contract.queries import Command
from switchgear.contract.values import Failure
from switchgear.errors import BreakerOpen
from switchgear.resilience.classes import Verdict
from switchgear.steps.guard import Changed, Guards

if TYPE_CHECKING:
    from switchgear.agent.attempt import Attempt
    from switchgear.agent.classifying import Judge
    from switchgear.agent.feeder import Feeder
    from switchgear.resilience.breaker import Breaker

log = logging.getLogger(__name__)

REMEMBERED = 16
"""Attempts of a capability from which it is known what they need."""
SHARE = 0.25
"""A capability needs what at least this share of them asked for: one task's odd address stops nobody else's."""
LONGEST_DELAY = 60.0
"""Seconds for which a refused task is kept from the instances that go on pulling its capability, and for which one
that was pulled as a probe is waited for to ask."""
_SLACK = 0.001
"""Seconds after the open time: timers may be a little early."""


class Try:
    """One attempt on this instance, from its delivery on."""

    __slots__ = ("capability", "expected", "met")

    def __init__(self, capability: str, expected: float) -> None:
        """`expected`: until when it is to ask, on the loop's clock, where a breaker lets only a few through."""
        self.capability = capability
        self.met: set[str] = set()
        """What it asked for so far."""
        self.expected = expected


class Breaking:
    """The breakers of one instance, and its tries."""

    def __init__(
        self,
        policies: Mapping[str, Breaker],
        judge: Judge,
        changed: Callable[[], None],
        *,
        seed: str,
    ) -> None:
        """`policies` by dependency, as for `Guards`; jitter is drawn from `seed`.

        `changed` is told when a breaker changed: the instance announces it.
        """
        self._changed = changed
        self._judge = judge
        self._loop = asyncio.get_running_loop()
        self._recent: dict[str, deque[frozenset[str]]] = {}
        self._tries: set[Try] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._troubled = False
        self.feeders: dict[str, Feeder] = {}
        """Told to look again when a breaker changed."""
        self.guards = Guards(
            policies,
            monotonic=self._loop.time,
            dice=random.Random(seed).random,  # noqa: S311  # jitter, not a secret: tests repeat it
            on_change=self._heard,
            on_probe_free=self._stir,
            judge=self._verdict,
        )

    def begin(self, capability: str) -> Try:
        """A delivery is about to be tried."""
        probe = self._troubled and self.room(capability) is not None
        now = self._loop.time()
        begun = Try(capability, now + LONGEST_DELAY if probe else now)
        self._tries.add(begun)
        if probe:
            self._arm()
        return begun

    def end(self, ended: Try) -> None:
        """The try has left; harmless when repeated."""
        if ended in self._tries:
            self._tries.remove(ended)
            recent = self._recent.setdefault(ended.capability, deque(maxlen=REMEMBERED))
            recent.append(frozenset(ended.met))

    def forget(self, capability: str) -> None:
        """Its steps run elsewhere from now on: what its attempts needed says nothing of the next ones."""
        self._recent.pop(capability, None)
        for one in self._tries:
            if one.capability == capability:
                one.met.clear()
        if capability in self.feeders:
            self.feeders[capability].look()

    def room(self, capability: str) -> int | None:
        """How many more tasks of the capability may begin, as far as breakers have a say; None: any number."""
        if not self._troubled:
            return None
        needed = self._needed(capability)
        room = self.guards.room(needed)
        if not room:
            return room
        # who was let begin as a probe, and has not asked yet, will want its share
        now = self._loop.time()
        pending = sum(
            one.expected > now and one.capability == capability and not one.met & needed
            for one in self._tries
        )
        return max(room - pending, 0)

    async def hand_back(
        self, attempt: Attempt, tried: Try, feeder: Feeder, refused: BreakerOpen
    ) -> None:
        """Give a refused task to others. Raises Lost, SwitchgearError as an append."""
        log.info("attempt.refused %s: %s", attempt.subject.task, refused.what)
        await attempt.released("breaker", refused.dependency)
        self.end(tried)
        if self.room(tried.capability) == 0:
            # with a pull open the same task would come back at once
            await feeder.end_pulls()
            attempt.delivery.nak()
            return
        # this instance goes on pulling: each time that nobody else could do it, it stays away for longer
        again = 2.0 ** min(attempt.delivery.deliveries - 1, 10)
        longest = max(refused.retry_after or 0.0, 1.0)
        attempt.delivery.nak(timedelta(seconds=min(again, longest, LONGEST_DELAY)))

    def commanded(self, command: Command) -> None:
        """Do what an operator orders; an order that says nothing to do is none."""
        if command.action is None or not command.dependency:
            log.warning("agent.command-refused a breaker's order without action or dependency")
            return
        log.warning(
            "breaker.ordered %s %s by %s: %s",
            command.action,
            command.dependency,
            command.by,
            command.why,
        )
        self.guards.command(command.dependency, command.action, command.by, command.why)
        self._look()

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _needed(self, capability: str) -> set[str]:
        """What the capability's attempts ask for, as a rule."""
        sets = [*self._recent.get(capability, ())]
        sets += [
            frozenset(one.met) for one in self._tries if one.capability == capability and one.met
        ]
        counts = Counter(name for one in sets for name in one)
        return {name for name, count in counts.items() if count >= SHARE * len(sets)}

    def _heard(self, change: Changed) -> None:
        """A breaker changed its state."""
        del change
        self._look()

    def _look(self) -> None:
        self._troubled = self.guards.troubled
        self._arm()
        self._stir()
        self._changed()

    def _stir(self) -> None:
        """A capability may be pulled that was not, perhaps by what another one's attempt left."""
        for feeder in self.feeders.values():
            feeder.look()

    def _arm(self) -> None:
        """Look again when more may be pulled: a breaker lets probes through then, or a probe is late."""
        now, due = self._loop.time(), self.guards.due()
        moments = [one.expected for one in self._tries if one.expected > now]
        if due is not None:
            moments.append(now + due.total_seconds())
        at = min(moments, default=None)
        if at is None or (self._timer is not None and self._timer.when() <= at + _SLACK):
            return  # one that is due sooner is harmless, and arms anew
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at + _SLACK, self._due)

    def _due(self) -> None:
        self._timer = None
        self._arm()
        self._stir()

    def _verdict(self, error: BaseException) -> Verdict | Failure:
        if isinstance(error, Lost | CancelledMeanwhile | Suspended):
            return Verdict("cancelled")
        return self._judge(error)
