"""Services of process steps: what each sees, the network that they share with the step, and what they cannot do here.

Below the process executor. `serving` runs them, `network` is where they meet.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from switchgear.errors import ServiceFailed
from switchgear.steps import arranging, bubblewrap, fetching, images, network, serving, spawning
from switchgear.steps.executor import Unsupported
from switchgear.steps.service_failure import unstartable

if TYPE_CHECKING:
    from switchgear.steps.network import Network
    from switchgear.steps.serving import Beside, Served
    from switchgear.steps.settings import StepSettings
    from switchgear.steps.spec import Service, StepSpec
    from switchgear.steps.workspace import Workspace

_ENGINE = "configure an engine for the dagger executor"


def lacking(spec: StepSpec) -> Unsupported | None:
    """What of its services only an engine can do; images aside."""
    if not spec.services:
        return None
    if shutil.which(network.NSENTER) is None:
        return Unsupported(
            feature="services",
            why=f"{network.NSENTER} is not installed",
            fix="install the package util-linux",
        )
    if any(one.networked for one in spec.specs):
        return Unsupported(
            feature="services beside a step with the network",
            why="as processes they share a network with the step that has nothing else",
            fix=f"leave out .network(), or {_ENGINE}",
        )
    taken: set[int] = set()
    for service in spec.services:
        wrong = _lacking(service, taken)
        if wrong is not None:
            return wrong
        taken.update(service.ports)
    return None


def _lacking(service: Service, taken: set[int]) -> Unsupported | None:
    if not service.spec.commands:
        return Unsupported(
            feature=f"the service {service.name} without a command",
            why="only an engine knows the command of an image",
            fix=f"add .exec(…), or {_ENGINE}",
        )
    if service.spec.caches:
        return Unsupported(
            feature=f"a cache of the service {service.name}",
            why="a service and its step could wait for each other",
            fix=f"leave out .cache(…), or {_ENGINE}",
        )
    both = taken.intersection(service.ports)
    if both:
        return Unsupported(
            feature=f"two services on port {min(both)}",
            why="as processes they share one network",
            fix=f"give them different ports, or {_ENGINE}",
        )
    return None


@asynccontextmanager
async def opened(
    spec: StepSpec,
    workspace: Workspace,
    settings: StepSettings,
    environ: Mapping[str, str],
) -> AsyncGenerator[Beside]:
    """The services of a step as long as this is entered; all that name ports listen.

    What they mount must come within the step's time limit. Raises StepFailed, and as `fetching.place`.
    """
    if not spec.services:
        yield serving.Beside(workspace.key, {})
        return
    hosts = workspace.directory / "hosts"
    names = ("localhost", *(one.name for one in spec.services))
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in names), "ascii")
    async with AsyncExitStack() as stack:
        shared = await _network(workspace.key, stack)
        until = fetching.due(spec)
        served = [
            await _served(one, shared, str(hosts), workspace, settings, environ, until)
            for one in spec.services
        ]
        yield await stack.enter_async_context(
            serving.beside(workspace.key, shared, str(hosts), served)
        )


async def _network(key: str, stack: AsyncExitStack) -> Network:
    try:
        return await stack.enter_async_context(network.opened())
    except network.NoNetwork as error:
        raise ServiceFailed(
            f"step {key} did not begin: there is no network for its services",
            key=key,
            error_class="invalid",
            why=str(error),
            fix="let users of this host make user namespaces",
        ) from error


async def _served(
    service: Service,
    shared: Network,
    hosts: str,
    workspace: Workspace,
    settings: StepSettings,
    environ: Mapping[str, str],
    until: float | None,
) -> Served:
    """A service with what it sees. Raises StepFailed."""
    spec, whose = service.spec, f"service-{service.name}"
    home = workspace.directory / whose
    for place in (home / "work", home / "tmp"):
        place.mkdir(parents=True)
    secrets = {one.name: workspace.secret(one) for one in spec.secrets}
    image = None if spec.image is None else images.resolve(spec.image, settings.aliases).text
    given = arranging.Given(
        rootfs=image,
        mounts=await fetching.places(spec, workspace, until, f"{whose}/"),
        caches={},
        scratch=str(home / "work"),
        temporary=str(home / "tmp"),
        secrets=secrets,
        environ=environ,
        shown=settings.shown,
        hosts=hosts,
        entering=shared.entering,
    )
    try:
        arranged = arranging.in_sandbox(spec, given)
    except arranging.Cannot as cannot:
        raise unstartable(workspace.key, service.name, cannot.what) from cannot
    assert arranged.sandbox is not None
    limits = spawning.rlimits(spec)
    jobs = [bubblewrap.Job(arranged.sandbox, argv, None, limits) for argv in arranged.argvs]
    # the step may send it its own secrets
    streams = spawning.Streams(spec.output_limit, None, workspace.texts)
    return serving.Served(service, jobs, streams)
