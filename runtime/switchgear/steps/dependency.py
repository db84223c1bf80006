"""What one instance knows of one dependency: its breaker, its places, and who waits for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from switchgear.errors import BreakerOpen
from switchgear.resilience.breaker import Breaker
from switchgear.resilience.bulkhead import Bulkhead
from switchgear.resilience.circuit import LOOK_AGAIN, Circuit


class Dependency:
    """One dependency of one instance. Times are seconds of the monotonic clock."""

    __slots__ = ("_turns", "asked", "bulkhead", "circuit", "name", "policy", "probe_free")

    def __init__(
        self, name: str, policy: Breaker, circuit: Circuit, probe_free: Callable[[], None]
    ) -> None:
        """`probe_free` is told when a probe showed nothing, and another may take its place."""
        self.probe_free = probe_free
        self.name = name
        self.policy = policy
        self.circuit = circuit
        self.bulkhead = Bulkhead(policy.concurrency, policy.queue)
        self.asked = 0.0
        """When somebody last asked for it."""
        self._turns: deque[asyncio.Future[None]] = deque()

    @property
    def idle(self) -> bool:
        """Whether only counts would be lost if it were forgotten."""
        return self.circuit.state == "closed" and not self.bulkhead.busy

    def wait(self, now: float) -> float | None:
        """Seconds after which it makes sense to ask again; None: now."""
        wait = self.circuit.wait(now)
        return LOOK_AGAIN if wait is None and self.bulkhead.full else wait

    def enter(self, now: float) -> Coroutine[Any, Any, None] | None:
        """Take a place; returns what to await where it comes in turn. Raises BreakerOpen.

        It is raised where the breaker would refuse, where there is no place and no turn, and while waiting.
        """
        circuit = self.circuit
        if circuit.state != "closed" and circuit.room(now) == 0:
            raise self.refused(now)
        arrival = self.bulkhead.arrive()
        if arrival == "pass":
            return None
        if arrival == "full":
            raise self._full(f"{self.bulkhead.waiting} calls wait for a place already")
        return self._turn()

    def leave(self) -> None:
        """Give the place to whoever has waited longest."""
        if not self._turns:
            self.bulkhead.leave()
            return
        # who was cancelled has not left the queue yet
        turn = next((one for one in self._turns if not one.done()), None)
        if turn is None:
            self.bulkhead.leave()
            return
        self._turns.remove(turn)
        self.bulkhead.hand_on()
        turn.set_result(None)

    def changed(self, now: float) -> None:
        """The breaker changed its state: nobody waits for a place at what would be refused then."""
        if self.circuit.room(now) == 0:
            for turn in self._turns:
                if not turn.done():
                    turn.set_exception(self.refused(now))

    def refused(self, now: float) -> BreakerOpen:
        """The error of a call that the breaker does not let through."""
        seen = self.circuit.seen(now)
        told = {
            "open": f"the breaker of {self.name} is open",
            "forced-open": f"the breaker of {self.name} is held open",
        }
        return BreakerOpen(
            told.get(seen.state, f"the breaker of {self.name} waits for what its probes show"),
            why=seen.why,
            dependency=self.name,
            state=seen.state,
            error_class=seen.error_class or "transient",
            retry_after=self.circuit.wait(now),
        )

    async def _turn(self) -> None:
        """Wait for a place. Raises BreakerOpen after the policy's time, or when the breaker opens meanwhile."""
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        limit = asyncio.timeout(self.policy.queue_for.total_seconds())
        try:
            async with limit:
                await turn
        except BaseException as error:
            given = turn.done() and not turn.cancelled() and turn.exception() is None
            if given:
                self.leave()  # the place came together with what ended the wait
            else:
                self._turns.remove(turn)
                self.bulkhead.give_up()
            if isinstance(error, TimeoutError) and limit.expired():
                raise self._full(f"no place was free within {self.policy.queue_for}") from None
            raise

    def _full(self, why: str) -> BreakerOpen:
        return BreakerOpen(
            f"all {self.policy.concurrency} places of {self.name} are taken",
            why=why,
            dependency=self.name,
            state="full",
            error_class="rate-limited",
            retry_after=LOOK_AGAIN,
        )
