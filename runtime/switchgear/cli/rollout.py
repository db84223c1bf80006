"""`switchgear rollout`: set, back, rm, status, report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

from switchgear.cli import common as shared
from switchgear.cli.common import COMMON, Common

if TYPE_CHECKING:
    from switchgear.client.rollouts import Rollouts
    from switchgear.contract.rollout import Mode, Rollout


def set_(
    capability: str,
    mode: Literal["process", "dagger", "percent", "shadow", "fallback"],
    /,
    *,
    step: str = "*",
    percent: float | None = None,
    serve: Literal["process", "dagger"] = "process",
    twice: bool = False,
    ignore_stdout: bool = False,
    why: str = "",
    common: Common = COMMON,
) -> int:
    """Choose where a capability's steps run.

    Args:
        capability: Whose steps; `switchgear capability ls` lists them.
        mode: All on one executor, a percentage of the tasks on dagger, both at once, or dagger with a way back.
        step: A step's key, the beginning of keys and a *, or * for all that nothing else names.
        percent: Of the tasks: how many run on dagger, or are shadowed; the same ones each time.
        serve: In shadow: whose outcome counts.
        twice: In shadow: run steps twice that are not marked idempotent, too.
        ignore_stdout: In shadow: another standard output is no difference.
        why: For those who read it later.
        common: Shared by all commands.
    """
    return shared.run(
        _changed(
            capability,
            step,
            lambda rollouts: rollouts.set(
                capability,
                mode,
                step=step,
                percent=percent,
                serve=serve,
                twice=twice,
                compare_stdout=not ignore_stdout,
                why=why,
            ),
            common,
        )
    )


def back(capability: str, /, *, step: str = "*", why: str = "", common: Common = COMMON) -> int:
    """Let stand again what stood before.

    Args:
        capability: Whose steps.
        step: Of which steps: as it was set.
        why: For those who read it later.
        common: Shared by all commands.
    """
    return shared.run(
        _changed(
            capability, step, lambda rollouts: rollouts.back(capability, step=step, why=why), common
        )
    )


def rm(capability: str, /, *, step: str = "*", common: Common = COMMON) -> int:
    """Take a rule away.

    Args:
        capability: Whose steps.
        step: Of which steps: as it was set.
        common: Shared by all commands.
    """
    return shared.run(
        _changed(capability, step, lambda rollouts: rollouts.remove(capability, step=step), common)
    )


def status(capability: str | None = None, /, *, common: Common = COMMON) -> int:
    """List the rules in force.

    Args:
        capability: Only those of this one.
        common: Shared by all commands.
    """
    return shared.run(_status(capability, common))


def report(
    capability: str | None = None,
    /,
    *,
    runs: int = 50,
    ratio: float = 1.5,
    common: Common = COMMON,
) -> int:
    """Say what came of each rule, and whether its steps are ready for dagger.

    Args:
        capability: Only of this one.
        runs: How many shadow runs must have been compared.
        ratio: How many times as long dagger may take.
        common: Shared by all commands.
    """
    return shared.run(_report(capability, runs, ratio, common))


async def _changed(
    capability: str,
    step: str,
    change: Callable[[Rollouts], Awaitable[Rollout]],
    common: Common,
) -> int:
    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.COORDINATOR):
            found = await change(mesh.rollouts)
            offered = {one.offer.name for one in (await mesh.capabilities()).rows}
    if capability not in offered:
        common.output.say(f"no live instance offers {capability}: `switchgear capability ls`")
    rule = found.rules.get(step)
    mode: Mode | None = None if rule is None else rule.mode

    def draw() -> str:
        if mode is None:
            return f"{capability} {step}: no rule, agents decide by themselves"
        return f"{capability} {step}: {mode}, from the next step on"

    common.output.put("rollout", {"rollout": found}, draw)
    return 0


async def _status(capability: str | None, common: Common) -> int:
    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.COORDINATOR):
            found = await mesh.rollouts.list(capability)

    def draw() -> Any:
        from switchgear.cli.render import rollouts
        from switchgear.clock import SYSTEM

        return rollouts.rules(found, SYSTEM.now())

    common.output.put("rollout-list", {"rollouts": found}, draw)
    return 0


async def _report(capability: str | None, runs: int, ratio: float, common: Common) -> int:
    async with shared.joined(common) as mesh:
        with shared.answered_by(*shared.READ_MODEL):
            reports = await mesh.rollouts.report(capability, runs=runs, ratio=ratio)

    def draw() -> Any:
        from switchgear.cli.render import rollouts

        return rollouts.reports(reports)

    documents = [one._asdict() for one in reports]
    common.output.put("rollout-report", {"reports": documents}, draw)
    return 0
