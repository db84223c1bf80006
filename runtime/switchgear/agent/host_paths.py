"""To which paths of the agent's host the values of a task may lead a pipeline's step.

What the pipeline's file says itself is its author's business, and free.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from switchgear.pipelines import template
from switchgear.pipelines.evaluating import CannotEvaluate
from switchgear.steps import images
from switchgear.steps.sources import Git, Local, Source

if TYPE_CHECKING:
    from switchgear.pipelines.model import Step
    from switchgear.steps.spec import StepSpec

Roots = tuple[str, ...] | None
"""Directories to which values may lead, with all that is below; None: to any."""


def roots(named: Collection[str | Path] | None) -> Roots:
    """The directories, without links."""
    return None if named is None else tuple(os.path.realpath(one) for one in named)


def check(step: Step, spec: StepSpec, allowed: Roots) -> None:
    """Raises CannotEvaluate where a value has led the step to another path; links count as what they point to."""
    if allowed is None:
        return
    for path in _led_to(step, spec):
        if not _within(os.path.realpath(path), allowed):
            known = f"only to: {', '.join(allowed)}" if allowed else "its agent has no host_paths"
            raise CannotEvaluate(f"tasks may not lead to {path} on this host, {known}")


def _led_to(step: Step, spec: StepSpec) -> Iterator[str]:
    """The host's paths in whose names something was filled in."""
    filled = {
        posixpath.normpath(one.path)
        for one in step.mounts
        if not (template.is_plain(one.local) and template.is_plain(one.git))
    }
    for one in spec.mounts:
        if one.path in filled and (path := _of_host(one.source)):
            yield path
    if spec.image and not template.is_plain(step.image):
        image = images.parse(spec.image)
        if image.kind != "registry":
            yield image.text
    inside = [one.path for one in spec.mounts]
    directory = spec.directory or ""
    if not (spec.image or template.is_plain(step.workdir) or _within(directory, inside)):
        yield directory


def _of_host(source: Source) -> str:
    """The path of this host that it is; empty for none."""
    if isinstance(source, Local):
        return source.path
    if isinstance(source, Git) and source.url.startswith("file:"):
        return unquote(urlsplit(source.url).path)
    return ""


def _within(path: str, directories: Collection[str]) -> bool:
    return any(path == one or path.startswith(f"{one.rstrip('/')}/") for one in directories)
