"""Rollouts as a client sets and sees them: on which executor steps run, and whether they may be switched."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from switchgear.contract import subjects
from switchgear.contract.rollout import (
    ExecutorName,
    Mode,
    Rollout,
    RolloutCommand,
    RolloutCounts,
    RolloutCountsQuery,
    RolloutRule,
    RolloutsQuery,
)
from switchgear.contract.rollout import (
    Rollouts as Answered,
)
from switchgear.errors import RolloutRefused
from switchgear.resilience.rollout import MAX_RATIO, MINIMUM_RUNS, readiness

if TYPE_CHECKING:
    from switchgear.client.view import View


class Report(NamedTuple):
    """Where the steps of one pattern stand on their way to dagger."""

    capability: str
    pattern: str
    rule: RolloutRule
    counts: RolloutCounts
    ready: bool
    missing: tuple[str, ...]
    """What stands against a switch, in words."""


class Rollouts:
    """The rollouts of a mesh: `mesh.rollouts`. They belong to the mesh, whoever set them."""

    def __init__(self, mesh: View) -> None:
        self._mesh = mesh

    async def set(
        self,
        capability: str,
        mode: Mode,
        *,
        step: str = "*",
        percent: float | None = None,
        serve: ExecutorName = "process",
        twice: bool = False,
        compare_stdout: bool = True,
        why: str = "",
    ) -> Rollout:
        """Let the capability's steps run so, from the next one on; returns its rules.

        `step`: a step's key, the beginning of keys and a `*`, or `*` for all others. `percent` of the tasks run on
        dagger (mode `percent`), or are shadowed (100 by default). `serve`, `twice` and `compare_stdout` belong to
        `shadow`: whose outcome counts, whether steps that are not marked idempotent run twice as well, and whether
        their standard output is compared. Raises RolloutRefused, ProtocolError for what is no capability's name,
        Unavailable when no coordinator answers.
        """
        if mode == "percent" and percent is None:
            raise RolloutRefused(
                "the mode percent needs a percentage", fix="say how many: --percent 5"
            )
        if percent is not None and not 0 <= percent <= 100:  # noqa: PLR2004 - per cent
            raise RolloutRefused(f"{percent:g} is no percentage", fix="give 0 to 100")
        rule = RolloutRule(
            mode=mode,
            percent=100.0 if percent is None else percent,
            serve=serve,
            twice=twice,
            compare_stdout=compare_stdout,
        )
        return await self._command(
            RolloutCommand(
                verb="set",
                capability=subjects.token(capability, "capability"),
                pattern=step,
                rule=rule,
                why=why,
            )
        )

    async def back(self, capability: str, *, step: str = "*", why: str = "") -> Rollout:
        """Let stand again what stood before the newest change of this pattern. Raises as `set`."""
        return await self._command(
            RolloutCommand(
                verb="back",
                capability=subjects.token(capability, "capability"),
                pattern=step,
                why=why,
            )
        )

    async def remove(self, capability: str, *, step: str = "*") -> Rollout:
        """Take the rule of this pattern away: its steps run as agents do by themselves. Raises as `set`."""
        return await self._command(
            RolloutCommand(
                verb="remove", capability=subjects.token(capability, "capability"), pattern=step
            )
        )

    async def list(self, capability: str | None = None) -> list[Rollout]:
        """The rules in force, by capability. Raises Unavailable when no coordinator answers."""
        if capability is not None:
            subjects.token(capability, "capability")
        found = await self._mesh.ask("rollouts", RolloutsQuery(capability=capability), Answered)
        return [*found.rollouts]

    async def report(
        self,
        capability: str | None = None,
        *,
        runs: int = MINIMUM_RUNS,
        ratio: float = MAX_RATIO,
    ) -> list[Report]:
        """What came of each rule since it was set, and whether its steps may be switched to dagger.

        Ready: at least `runs` shadow runs were compared, none differed, and dagger took at most `ratio` times as
        long. Raises Unavailable when no coordinator, or no read model, answers.
        """
        reports: list[Report] = []
        for one in await self.list(capability):
            for pattern, rule in sorted(one.rules.items()):
                query = RolloutCountsQuery(
                    capability=one.capability, pattern=pattern, since=rule.since
                )
                counts = await self._mesh.ask("rollout-counts", query, RolloutCounts)
                judged = readiness(rule, counts, runs=runs, most=ratio)
                reports.append(Report(one.capability, pattern, rule, counts, *judged))
        return reports

    async def _command(self, command: RolloutCommand) -> Rollout:
        return await self._mesh.ask("rollout", command, Rollout)
