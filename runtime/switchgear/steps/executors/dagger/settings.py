"""How the Dagger executor finds an engine and how far it trusts it. Read once from the environment."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from datetime import timedelta

from msgspec import Struct

from switchgear.errors import ConfigError

CLI = "_EXPERIMENTAL_DAGGER_CLI_BIN"
RUNNER = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
PORT = "DAGGER_SESSION_PORT"
TOKEN = "DAGGER_SESSION_TOKEN"  # noqa: S105 - the name of a variable

_HANDED_ON = frozenset({
    "ALL_PROXY", "HOME", "HTTPS_PROXY", "HTTP_PROXY", "KUBECONFIG", "LANG", "LOGNAME", "NO_PROXY", "PATH",
    "SSH_AUTH_SOCK", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ", "USER",
    "all_proxy", "http_proxy", "https_proxy", "no_proxy",
})  # fmt: skip
_HANDED_ON_PREFIXES = (
    "DAGGER_",
    "DOCKER_",
    "LC_",
    "OTEL_",
    "XDG_",
    "_DAGGER_",
    "_EXPERIMENTAL_DAGGER_",
)
"""How to reach engines, registries and collectors."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


class ProvidedSession(Struct, frozen=True):
    """A session that somebody else owns; its CLI must see the same files as the agent."""

    port: int
    token: str

    def __repr__(self) -> str:
        return f"ProvidedSession(port={self.port})"


class DaggerSettings(Struct, frozen=True, kw_only=True):
    """Where the engine is, and how long things may take."""

    cli: str = ""
    """The CLI that serves sessions; empty: there is none."""
    runner: str = ""
    """The engine, as the CLI understands it: `unix://…`, `tcp://…` and others; empty: the CLI decides."""
    provided: ProvidedSession | None = None
    """Use this session instead of starting one."""
    environ: tuple[tuple[str, str], ...] = ()
    """What the CLI inherits of the agent's environment, beside what is said above."""
    concurrency: int = 8
    """Steps at the same time; the engine itself knows no limit."""
    start_timeout: timedelta = timedelta(seconds=20)
    """For a session to become ready."""
    connect_timeout: timedelta = timedelta(seconds=20)
    """For a client to connect to a session that is ready."""
    pull_timeout: timedelta = timedelta(minutes=10)
    """For an image to be there."""
    grace: timedelta = timedelta(seconds=15)
    """How much longer than its own limit a step may take to be set up and to answer."""
    probe_every: timedelta = timedelta(seconds=3)
    """How often the engine is asked for a sign of life while steps run."""
    probe_timeout: timedelta = timedelta(seconds=5)
    """How long that sign may take; after it the engine counts as frozen."""
    health_timeout: timedelta = timedelta(seconds=2)
    """How long the engine may take to show that it is well, and a session to open for the question."""
    idle_after: timedelta = timedelta(seconds=30)
    """An unused session is released then: an open one keeps its engine from stopping."""
    strict_network: bool = False
    """Refuse steps that do not ask for the network, since an engine cannot keep it from them."""

    def __repr__(self) -> str:
        # The environment holds credentials.
        return (
            f"DaggerSettings(cli={self.cli!r}, runner={self.runner!r}, provided={self.provided!r})"
        )

    @property
    def configured(self) -> bool:
        """Whether there is an engine to speak of."""
        return self.provided is not None or bool(self.cli)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> DaggerSettings:
        """From Dagger's own variables and SWITCHGEAR_DAGGER_*. Raises ConfigError."""
        names = {
            "concurrency": "SWITCHGEAR_DAGGER_CONCURRENCY",
            "start_timeout": "SWITCHGEAR_DAGGER_START_TIMEOUT",
            "pull_timeout": "SWITCHGEAR_DAGGER_PULL_TIMEOUT",
            "probe_timeout": "SWITCHGEAR_DAGGER_PROBE_TIMEOUT",
            "idle_after": "SWITCHGEAR_DAGGER_IDLE",
        }
        given = {field: environ[name] for field, name in names.items() if environ.get(name)}
        default = cls()
        return cls(
            cli=_cli(environ),
            runner=environ.get(RUNNER, ""),
            provided=_provided(environ),
            environ=tuple(sorted(_handed_on(environ).items())),
            concurrency=_number(names["concurrency"], given.pop("concurrency", None)),
            strict_network=environ.get("SWITCHGEAR_DAGGER_NETWORK", "") == "strict",
            **{
                field: _duration(names[field], given[field]) if field in given else value
                for field, value in (
                    ("start_timeout", default.start_timeout),
                    ("pull_timeout", default.pull_timeout),
                    ("probe_timeout", default.probe_timeout),
                    ("idle_after", default.idle_after),
                )
            },
        )


def _handed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """What the CLI needs of the agent's environment, and none of its credentials for other things."""
    return {
        name: value
        for name, value in environ.items()
        if name in _HANDED_ON or name.startswith(_HANDED_ON_PREFIXES)
    }


def _cli(environ: Mapping[str, str]) -> str:
    """The CLI that is named, or one on PATH where a runner is named: a stray one there is no wish to use it."""
    if environ.get(CLI):
        return environ[CLI]
    if not environ.get(RUNNER):
        return ""
    found = shutil.which("dagger", path=environ.get("PATH"))
    if found is None and not environ.get(PORT):
        # said, since steps would else run on the host in silence
        raise ConfigError(
            "a Dagger engine is named, but there is no CLI to reach it by",
            why=f"{RUNNER} is set, {CLI} is not, and no dagger is on PATH",
            fix=f"set {CLI} to the CLI, or unset {RUNNER}",
        )
    return found or ""


def _provided(environ: Mapping[str, str]) -> ProvidedSession | None:
    port, token = environ.get(PORT, ""), environ.get(TOKEN, "")
    if not port and not token:
        return None
    if not port.isdecimal() or not 0 < int(port) < 65536 or not token:  # noqa: PLR2004 - ports
        raise ConfigError(
            "a Dagger session is given, but not completely",
            why=f"{PORT} is {port!r} and {TOKEN} is {'set' if token else 'empty'}",
            fix=f"set {PORT} to a port and {TOKEN} to its token, or neither",
        )
    return ProvidedSession(int(port), token)


def _number(name: str, text: str | None) -> int:
    if text is None:
        return DaggerSettings().concurrency
    if not text.isdecimal() or not 0 < int(text) <= 64:  # noqa: PLR2004 - below the SDK's 100 connections
        raise ConfigError(f"{name}={text!r} cannot be used", fix="set it to a number from 1 to 64")
    return int(text)


def _duration(name: str, text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ConfigError(f"{name}={text!r} is no duration", fix="write it like 500ms, 20s or 5m")
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
