"""Rollouts for scripts: no `await`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from switchgear.client.loop_thread import LoopThread
    from switchgear.client.rollouts import Report, Rollouts
    from switchgear.contract.rollout import Mode, Rollout


class SyncRollouts:
    """The rollouts of a mesh: `mesh.rollouts`, without `await`."""

    def __init__(self, thread: LoopThread, rollouts: Rollouts) -> None:
        self._thread = thread
        self._rollouts = rollouts

    def set(self, capability: str, mode: Mode, **options: Any) -> Rollout:
        """Let the capability's steps run so: see `Rollouts.set`."""
        return self._thread.call(self._rollouts.set(capability, mode, **options))

    def back(self, capability: str, *, step: str = "*", why: str = "") -> Rollout:
        """Let stand again what stood before: see `Rollouts.back`."""
        return self._thread.call(self._rollouts.back(capability, step=step, why=why))

    def remove(self, capability: str, *, step: str = "*") -> Rollout:
        """Take the rule of this pattern away: see `Rollouts.remove`."""
        return self._thread.call(self._rollouts.remove(capability, step=step))

    def list(self, capability: str | None = None) -> list[Rollout]:
        """The rules in force, by capability."""
        return self._thread.call(self._rollouts.list(capability))

    def report(self, capability: str | None = None, **limits: Any) -> list[Report]:
        """What came of each rule since it was set: see `Rollouts.report`."""
        return self._thread.call(self._rollouts.report(capability, **limits))
