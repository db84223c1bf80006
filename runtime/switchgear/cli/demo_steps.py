"""Where the demo's steps are to run, and where its history says that they ran. Pure, but for `why_plain`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from switchgear.contract.queries import Moment
from switchgear.steps import images
from switchgear.steps.executors.dagger.settings import DaggerSettings
from switchgear.steps.settings import StepSettings

_RUN: Final = re.compile(r"run .+? \((?P<executor>\w+), (?P<isolation>[\w ]+)\)")
"""How a checkpoint's words begin that tells of a command."""


class Ran(NamedTuple):
    """One step, as its checkpoint has it."""

    capability: str
    step: str
    executor: str
    isolation: str
    """`bubblewrap`, `container` or `not isolated`."""


class Engine(NamedTuple):
    """The engine that the environment names, in words."""

    where: str
    image: str


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the demo's agents get on top: sandboxes where there are any, and an image where there is an engine.

    Raises ConfigError.
    """
    isolation = environ.get("SWITCHGEAR_ISOLATION") or "preferred"
    if not DaggerSettings.load(environ).configured:
        return {"SWITCHGEAR_ISOLATION": isolation}
    own = f"python:{sys.version_info.major}.{sys.version_info.minor}"
    image = environ.get("SWITCHGEAR_ENGINE_IMAGE") or own
    return {"SWITCHGEAR_ISOLATION": isolation, "SWITCHGEAR_ENGINE_IMAGE": image}


def engine(environ: Mapping[str, str]) -> Engine | None:
    """The engine that steps without an image run on; None: there is none. Raises ConfigError."""
    found = DaggerSettings.load(environ)
    if not found.configured:
        return None
    settings = StepSettings.load({**environ, **environment(environ)})
    image = images.resolve(settings.engine_image, settings.aliases)
    where = f" at {found.runner}" if found.runner else ""
    if found.provided is not None:
        where = f" of the session at port {found.provided.port}"
    shown = image.text if image.kind == "registry" else f"{image.kind}:{image.text}"
    named = "" if shown == settings.engine_image else f" ({settings.engine_image})"
    return Engine(f"the Dagger engine{where}", f"{shown}{named}")


def ran(moments: Iterable[Moment]) -> list[Ran]:
    """The commands of a run, in the order in which they ended."""
    found = ((one, _RUN.match(one.detail)) for one in moments if one.kind == "run")
    return [
        Ran(one.capability, one.key, match["executor"], match["isolation"])
        for one, match in found
        if match is not None
    ]


def kinds(steps: Sequence[Ran]) -> str:
    """In a few words for programs, such as `dagger, container; process, bubblewrap`."""
    return "; ".join(sorted({f"{one.executor}, {one.isolation}" for one in steps}))


def told(steps: Sequence[Ran], engine: Engine | None, why_plain: str) -> str:
    """The same as a sentence for people. `why_plain`: what a step without isolation lacked."""
    inside = [one for one in steps if one.executor == "dagger"]
    outside = [one for one in steps if one.executor != "dagger"]
    if not steps:
        return "no step ran"
    if not inside:
        return f"steps ran {_processes(outside, why_plain)}"
    where = "a Dagger engine" if engine is None else f"{engine.where}, image {engine.image}"
    if not outside:
        return f"steps ran in {where}"
    names = ", ".join(dict.fromkeys(f"{one.capability}/{one.step}" for one in outside))
    return f"steps ran in {where}; {names} on the host, {_processes(outside, why_plain)}"


def _processes(steps: Sequence[Ran], why_plain: str) -> str:
    isolated = {one.isolation for one in steps}
    if "not isolated" not in isolated:
        return f"in {' and '.join(sorted(isolated))}"
    plain = "plain" if len(isolated) == 1 else "in part plain"
    return f"{plain}: {why_plain}" if why_plain else plain


async def why_plain(environ: Mapping[str, str]) -> str:
    """What this host lacks for sandboxes, or which setting says that there shall be none."""
    from switchgear.steps import bubblewrap

    if environ.get("SWITCHGEAR_ISOLATION") == "none":
        return "SWITCHGEAR_ISOLATION is none"
    why = await bubblewrap.probe()
    return f"{why} ({bubblewrap.INSTALL})" if bubblewrap.path() is None else why
