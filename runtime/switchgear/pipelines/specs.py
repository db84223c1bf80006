"""From a job to the spec of its step. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from switchgear.pipelines import evaluating, template
from switchgear.pipelines.evaluating import CannotEvaluate
from switchgear.pipelines.model import Mount
from switchgear.pipelines.plan import Ended, Job, Plan, scope
from switchgear.steps import images
from switchgear.steps.sources import git
from switchgear.steps.spec import StepSpec, container


def spec_of(plan: Plan, job: Job, ended: Mapping[str, Ended]) -> StepSpec:
    """What the job runs. Raises CannotEvaluate, and UsageError for filled-in texts that a step cannot take."""
    step, names = job.step, scope(plan, job, ended)
    image = _image(step.image, names)
    spec = container(image) if image else StepSpec()
    if any(mount.local for mount in step.mounts) and not image:
        # an engine, even one for steps without an image, would work on a copy
        spec = spec.on_host()
    commands = [_arguments(one, names) for one in step.commands]
    if step.script:
        commands = [[*_arguments(step.interpreter, names), step.script]]
    for command in commands:
        spec = spec.exec(*command)
    if step.workdir:
        spec = spec.workdir(_path("workdir", step.workdir, names))
    spec = spec.env(**{name: template.fill(text, names) for name, text in step.env.items()})
    for name, ref in step.secrets.items():
        spec = spec.secret(name, ref)
    for mount in step.mounts:
        spec = _mounted(spec, mount, plan, ended, names)
    for path, name in step.caches.items():
        spec = spec.cache(path, name)
    for name, path in step.outputs.items():
        spec = spec.output(name, path)
    if step.stdin:
        spec = spec.stdin(template.fill(step.stdin, names))
    return (
        spec.limits(timeout=step.timeout, memory=step.memory, cpu=step.cpu)
        .network(step.network)
        .expect(*step.expect)
        .idempotent(step.idempotent)
        .cacheable(step.cacheable)
    )


def _arguments(texts: tuple[str, ...], names: Mapping[str, Any]) -> list[str]:
    """The arguments; a list that is one by itself becomes several."""
    found: list[str] = []
    for text in texts:
        value = template.value(text, names)
        if isinstance(value, list):
            found += [evaluating.text(one) for one in cast("list[Any]", value)]
        else:
            found.append(evaluating.text(value))
    if not found or not found[0]:
        raise CannotEvaluate("the command has no program")
    return found


def _image(text: str, names: Mapping[str, Any]) -> str:
    """The image; only where the file says so is it a path of the agent's host."""
    image = template.fill(text, names)
    if image == text or not image:
        return image
    if ".." in image.split("/"):
        raise CannotEvaluate(f"the image {image!r} leads upwards")
    kind = images.parse(image).kind
    if kind != "registry" and not text.startswith(f"{kind}:"):
        raise CannotEvaluate(f"the image {image!r} is no registry reference")
    return image


def _path(what: str, text: str, names: Mapping[str, Any]) -> str:
    path = template.fill(text, names)
    if not path.startswith("/"):
        raise CannotEvaluate(f"{what}, {path!r}, is no absolute path")
    if ".." in path.split("/"):
        raise CannotEvaluate(f"{what}, {path!r}, leads upwards")
    return path


def _mounted(
    spec: StepSpec, mount: Mount, plan: Plan, ended: Mapping[str, Ended], names: Mapping[str, Any]
) -> StepSpec:
    read_only = not mount.writable
    if mount.artifact is None:
        if mount.git:
            source = git(template.fill(mount.git, names), template.fill(mount.ref, names))
            return spec.mount(mount.path, source, read_only=read_only)
        local = _path(f"what is mounted at {mount.path}", mount.local, names)
        return spec.mount(mount.path, local, read_only=read_only)
    step, output = mount.artifact
    for job in plan.of(step):
        artifact = ended[job.key].artifacts.get(output)
        if artifact is None:
            continue
        # Of a matrix, each combination's has a place of its own: a slash is written ~1, as in JSON pointers.
        own = job.combination.replace("~", "~0").replace("/", "~1")
        place = f"{mount.path}/{own}" if job.matrix else mount.path
        spec = spec.mount(place, artifact, read_only=read_only)
    return spec
