"""Runs steps in the containers of a Dagger engine.

Above: the runner, which asks the engine's breaker first. Below: `links` (the shared session), `images`
(pulls, under the breakers of registries), `pipeline` (spec to SDK calls), `script` (what runs inside),
`lines` (what it tells meanwhile), `errors` (what failures mean).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from switchgear.errors import SwitchgearError
from switchgear.resilience.classes import DISK, FILES, PROCESSES
from switchgear.resilience.dagger_failures import Finding, dagger_finding, not_begun
from switchgear.steps import shortage
from switchgear.steps.executor import Health, OnLine, Unsupported
from switchgear.steps.executors.dagger import pipeline, script
from switchgear.steps.executors.dagger.errors import SessionFailed, facts, failed
from switchgear.steps.executors.dagger.images import Images
from switchgear.steps.executors.dagger.lines import Lines
from switchgear.steps.executors.dagger.links import Links
from switchgear.steps.executors.dagger.script import UNHEARD
from switchgear.steps.executors.dagger.service import Services
from switchgear.steps.executors.dagger.settings import DaggerSettings
from switchgear.steps.result import Limits, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import dagger

    from switchgear.steps.executors.dagger.link import Link
    from switchgear.steps.executors.dagger.script import Frame
    from switchgear.steps.guard import Guards
    from switchgear.steps.images import Image
    from switchgear.steps.settings import StepSettings
    from switchgear.steps.spec import StepSpec
    from switchgear.steps.workspace import Workspace

_OPEN_NETWORK = "the network was not cut off: an engine cannot do that for one step"


class _Again(Exception):
    """The session died before the step ran: a new one may do it."""


class DaggerExecutor:
    """Runs steps in an engine."""

    name = "dagger"

    def __init__(
        self, settings: StepSettings, engine: DaggerSettings, guards: Guards | None = None
    ) -> None:
        """`guards`: what the breakers of registries and git hosts are among; None: there are none."""
        self._settings = settings
        self._engine = engine
        self._guards = guards
        self._links = Links(engine)
        self._images = Images(self._links, engine.pull_timeout, guards)
        self._slots = asyncio.Semaphore(engine.concurrency)

    @classmethod
    def configured(
        cls, settings: StepSettings, environ: Mapping[str, str], guards: Guards | None = None
    ) -> DaggerExecutor | None:
        """The executor, if the environment names a CLI or a session; else None. Raises ConfigError."""
        engine = DaggerSettings.load(environ)
        return cls(settings, engine, guards) if engine.configured else None

    @property
    def links(self) -> Links:
        """The session that its steps share."""
        return self._links

    def unsupported(self, spec: StepSpec) -> Unsupported | None:
        """What of the spec an engine cannot do."""
        if importlib.util.find_spec("dagger") is None:
            return Unsupported(
                feature="a container",
                why="the packages of the extra `dagger` are not installed",
                fix="pip install 'switchgear[dagger]'",
            )
        if spec.image is None:
            return Unsupported(
                feature="the programs of the agent's host",
                why="an engine runs images only",
                fix="begin it with container(image), or set SWITCHGEAR_ENGINE_IMAGE",
            )
        lacking = _lacking(spec, strict=self._engine.strict_network)
        return lacking or next(filter(None, map(self._missing, spec.specs)), None)

    def _missing(self, spec: StepSpec) -> Unsupported | None:
        """An archive or directory that is not there, also one that an alias names."""
        image = pipeline.resolved(spec, self._settings.aliases)
        if image.kind == "registry" or os.path.exists(image.text):  # noqa: PTH110 - spec holds text
            return None
        return Unsupported(
            feature=f"the image {image.kind}:{image.text}",
            why=f"{image.text} does not exist",
            fix="put it there, or change the image or its alias",
        )

    def dependencies(self, spec: StepSpec) -> tuple[str, ...]:
        """The engine, and what of this host a session and the step's files take: its memory is the engine's.

        Registries and git hosts are asked while the step is made ready, and only where it needs them.
        """
        del spec
        return (self.name, DISK, FILES, PROCESSES)

    async def execute(
        self, spec: StepSpec, *, on_line: OnLine | None, workspace: Workspace
    ) -> Outcome:
        """Run it. Raises StepFailed, BreakerOpen before it runs, and what this host or the store raises."""
        known = {} if self._engine.provided else dict(self._engine.environ)
        prepared = await pipeline.prepare(spec, workspace, known, self._guards)
        lines = Lines(on_line, [workspace.secret(one) for one in spec.secrets])
        async with self._slots:
            try:
                return await self._try(spec, prepared, workspace, lines, last=False)
            except _Again:
                return await self._try(spec, prepared, workspace, lines, last=True)

    async def health(self) -> Health:
        """Whether the engine answers now."""
        link = self._links.current
        try:
            if link is not None:
                well = await link.probe(self._engine.health_timeout.total_seconds())
            else:
                well = await _answers(self._engine)
        except SessionFailed as error:
            return Health(ok=False, why=f"{error}: {error.stderr.strip()[-500:]}".rstrip(": "))
        return Health(ok=well, why="" if well else "the engine gives no sign of life")

    async def close(self) -> None:
        """Release the session."""
        await self._links.close()

    async def _try(
        self,
        spec: StepSpec,
        prepared: Sequence[pipeline.Prepared],
        workspace: Workspace,
        lines: Lines,
        *,
        last: bool,
    ) -> Outcome:
        aliases = self._settings.aliases
        step = _Step(self._engine, aliases, self._images, spec, prepared, workspace, lines)
        link: Link | None = None
        try:
            async with self._links.use() as link:
                outcome = await link.run(step.run(link))
        except SwitchgearError:
            raise  # ours, such as a registry's breaker that is open: no word against the engine
        except Exception as error:  # whatever an SDK raises must get its class
            lacking = shortage.found_in(error, spec)
            if lacking is not None and lacking.dependency in (DISK, FILES):
                raise  # this host's: an engine tells its own by words
            await self._failed(error, step, link, last=last)
        kept = {name: await workspace.keep(name, path) for name, path in step.written.items()}
        return replace(outcome, outputs=kept)

    async def _failed(
        self, error: Exception, step: _Step, link: Link | None, *, last: bool
    ) -> NoReturn:
        """Say what the failure means, for the session and for the step. Raises OSError for a full disk of this host."""
        workspace = step.workspace
        found = facts(error, own=script.mark(step.spec))
        finding = dagger_finding(found, registry=step.pulling or step.image.host)
        if not workspace.in_doubt:
            finding = not_begun(finding)
        elif step.ran:
            verdict = finding.verdict._replace(outcome_known=False)
            finding = finding._replace(before_run=False, verdict=verdict)
        workspace.in_doubt = not finding.verdict.outcome_known
        if finding.verdict.error_class == "resource" and finding.verdict.dependency:
            shortage.ensure_room(workspace.directory)  # an engine does not tell whose disk is full
        if link is not None and finding.fatal:
            finding = await self._judged(finding, link, found.kinds)
        if link is not None and finding.fatal:
            await self._links.retire(link, f"{found.kinds[0]}: {found.message[-200:]}")
            if finding.before_run and not last and finding.verdict.retryable:
                raise _Again from error
        raise failed(workspace.key, found, finding) from error

    async def _judged(self, finding: Finding, link: Link, kinds: tuple[str, ...]) -> Finding:
        """A step that was late says nothing against a session whose engine answers others."""
        late = kinds[0] == "TimeoutError"
        seconds = self._engine.probe_timeout.total_seconds()
        return finding._replace(fatal=not (late and await link.probe(seconds)))


class _Step:
    """One try of one step on one session."""

    def __init__(
        self,
        engine: DaggerSettings,
        aliases: Mapping[str, str],
        images: Images,
        spec: StepSpec,
        prepared: Sequence[pipeline.Prepared],
        workspace: Workspace,
        lines: Lines,
    ) -> None:
        """`prepared`: of each of `spec.specs`."""
        self.spec = spec
        self.image = pipeline.resolved(spec, aliases)
        self.workspace = workspace
        self.ran = False
        """Whether its commands have ended: what fails then, such as an export, is no reason to run them again."""
        self.pulling = ""
        """The registry that is being asked."""
        self.written: dict[str, Path] = {}
        """Where this host has what it left."""
        self._engine = engine
        self._aliases = aliases
        self._images = images
        self._prepared = prepared
        limit = spec.time_limit
        self._longest = None if limit is None else (limit + engine.grace).total_seconds()
        """Seconds for the engine to run the step, and again to export what it leaves."""
        self._lines = lines
        self._run = ("" if lines.live else UNHEARD) + secrets.token_hex(8)
        self._notes: list[str] = [] if all(one.networked for one in spec.specs) else [_OPEN_NETWORK]

    async def run(self, link: Link) -> Outcome:
        """Run it. Raises what the SDK raises, TimeoutError, PullTimeout, BreakerOpen, StepFailed."""
        container = await self._base(link, self.image)
        client = link.client
        services = Services(link, self.workspace.key, self._engine.grace)
        try:
            own, *others = self._prepared
            for service, prepared in zip(self.spec.services, others, strict=True):
                image = pipeline.resolved(service.spec, self._aliases)
                theirs = await self._base(link, image)
                theirs = pipeline.surround(client, theirs, service.spec, prepared)
                made = services.add(service, pipeline.service(theirs, service, self._run))
                container = container.with_service_binding(service.name, made)
            container = pipeline.surround(client, container, self.spec, own)
            after = pipeline.execution(container, self.spec, self._run)
            await services.start()
            return await services.during(self._executed(after, self._heard(link)))
        finally:
            await services.stop()

    async def _base(self, link: Link, image: Image) -> dagger.Container:
        if image.kind == "registry" and not image.digest:
            self._notes.append(f"{image.text} is not pinned by its digest: it may change")
        self.pulling = image.host
        container = await self._images.get(link, image)
        self.pulling = ""
        return container

    def _heard(self, link: Link) -> AbstractContextManager[None]:
        return link.output.heard(self._run, self._lines.feed) if self._lines.live else nullcontext()

    async def _executed(
        self, after: dagger.Container, heard: AbstractContextManager[None]
    ) -> Outcome:
        import dagger

        loop = asyncio.get_running_loop()
        began = loop.time()
        self.workspace.in_doubt = True
        try:
            with heard:
                async with asyncio.timeout(self._longest):
                    frame = script.parse(self.spec, await after.stdout())
        except dagger.ExecError as error:
            frame = self._frame_of(error)
        self.ran = True
        self._lines.end((frame.stdout, frame.stderr), frame.lines)
        took = timedelta(seconds=loop.time() - began)
        good = not frame.timed_out and frame.exit_code in self.spec.exit_codes
        if good and self.spec.declared_outputs:
            self.written = await self._exported(after, frame)
        return Outcome(
            exit_code=frame.exit_code,
            stdout=frame.stdout,
            stderr=frame.stderr,
            truncated=frame.truncated,
            duration=took if frame.duration is None else frame.duration,
            timed_out=frame.timed_out,
            executor=DaggerExecutor.name,
            isolation="container",
            limits=_limits(self.spec),
            cached=frame.run != self._run,
            notes=tuple(dict.fromkeys(self._notes)),
        )

    def _frame_of(self, error: dagger.ExecError) -> Frame:
        """What the script told, if it was the script that failed."""
        if script.mark(self.spec) not in error.command:
            raise error
        try:
            return script.parse(self.spec, error.stdout, error.stderr)
        except script.Unframed:
            raise error from None

    async def _exported(self, after: dagger.Container, frame: Frame) -> dict[str, Path]:
        folder: Path = self.workspace.directory / "outputs"
        async with asyncio.timeout(self._longest):
            return await pipeline.export(after, self.spec, frame.outputs, folder, self.workspace)


async def _answers(engine: DaggerSettings) -> bool:
    """Whether an engine answers through a session that is opened for the question alone. Raises SessionFailed."""
    from switchgear.steps.executors.dagger.link import probe
    from switchgear.steps.executors.dagger.session import CliSession

    seconds = engine.health_timeout.total_seconds()
    if engine.provided is not None:
        return await probe(engine.provided.port, engine.provided.token, seconds)
    short = DaggerSettings(
        cli=engine.cli,
        runner=engine.runner,
        environ=engine.environ,
        start_timeout=engine.health_timeout,
    )
    session = await CliSession.start(short)
    try:
        return await probe(session.port, session.token, seconds)
    finally:
        await session.kill()


def _lacking(spec: StepSpec, *, strict: bool) -> Unsupported | None:
    if not spec.commands:
        return Unsupported(
            feature="an image's own command",
            why="a step runs the commands that its spec names",
            fix="add .exec(…)",
        )
    if any(one.file_limit is not None for one in spec.specs):
        return Unsupported(
            feature="a limit of file sizes",
            why="an engine has none, and the step's outputs would count",
            fix="leave out .limits(file=…), or run it as a process",
        )
    if strict and not all(one.networked for one in spec.specs):
        return Unsupported(
            feature="a network that is cut off",
            why="an engine cannot do that for one step, and SWITCHGEAR_DAGGER_NETWORK is strict",
            fix="add .network(), or run it as a process",
        )
    for service in spec.services:
        if service.spec.image is None:
            return Unsupported(
                feature=f"the service {service.name} without an image",
                why="an engine runs images only",
                fix="begin its spec with container(image)",
            )
    return None


def _limits(spec: StepSpec) -> Limits:
    return Limits(
        memory="" if spec.memory_limit is None else "address-space",
        cpu="" if spec.cpu_limit is None else "cpu-time",
    )
