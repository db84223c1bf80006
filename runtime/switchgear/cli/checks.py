"""What `switchgear doctor` looks at: pure verdicts over facts that `doctor` gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple

from switchgear.cli import words
from switchgear.errors import SwitchgearError

Verdict = Literal["ok", "warn", "fail"]

MIN_PYTHON: Final = (3, 11)
SLOW: Final = timedelta(milliseconds=50)
"""A round trip beyond this makes every step of a task slow."""
SKEW: Final = timedelta(seconds=1)
"""Agents trust a delivery's store time within this much of their own clock (rule 6)."""
LAG: Final = 10_000
"""Entries behind the ledger beyond which lists are of little use."""
LOW_DISK: Final = 2 * 1024**3
"""Bytes left for the store below which it is time to act."""
MIN_PAYLOAD: Final = 1024 * 1024
"""Bytes of a message that the protocol counts on."""

EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "cli": ("cyclopts", "rich"),
    "coordinator": ("cronsim", "jsonschema_rs", "packaging"),
    "dagger": ("dagger", "gql"),
    "fast": ("uvloop",),
    "agents": ("detect_secrets", "lizard"),
    "parquet": ("arro3",),
    "pipelines": ("yaml",),
    "testing": ("cronsim", "jsonschema_rs", "packaging"),
}
"""Modules that each extra brings; the extra `server` is looked for by its binary."""


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


def failed(name: str, error: SwitchgearError) -> Check:
    """A check that an error answers."""
    why = f": {error.why}" if error.why else ""
    return Check(name, "fail", f"{error.code} {error.what}{why}", error.fix)


def python(version: tuple[int, ...]) -> Check:
    """The interpreter."""
    shown = ".".join(str(part) for part in version[:3])
    if version[:2] < MIN_PYTHON:
        return Check("python", "fail", f"Python {shown}", "use Python 3.11 or newer")
    return Check("python", "ok", f"Python {shown}")


def extras(missing: Mapping[str, Sequence[str]]) -> Check:
    """Optional packages, by extra; `missing` names the modules that are not there."""
    gone = [f"{extra} ({', '.join(modules)})" for extra, modules in missing.items() if modules]
    if not gone:
        return Check("extras", "ok", f"installed: {', '.join(missing)}")
    names = ",".join(extra for extra, modules in missing.items() if modules)
    return Check(
        "extras", "warn", f"missing: {'; '.join(gone)}", f"pip install 'switchgear[{names}]'"
    )


def setting(name: str, value: str, origin: str) -> Check:
    """A setting and where it came from."""
    return Check(name, "ok", f"{value} (from {origin})" if value else f"none (from {origin})")


def binary(path: str, error: SwitchgearError | None) -> Check:
    """The nats-server that `switchgear dev` would start."""
    if error is not None:
        return Check("nats-server", "warn", error.what, error.fix)
    return Check("nats-server", "ok", path)


def sandbox(why: str, isolation: str) -> Check:
    """Whether steps can be isolated here; `why` not, and what the settings say then."""
    if isolation == "none":
        return Check("sandbox", "warn", "steps run plain", "unset SWITCHGEAR_ISOLATION")
    if not why:
        return Check("sandbox", "ok", "bubblewrap makes sandboxes for steps")
    then = "steps run plain" if isolation == "preferred" else "process steps are refused"
    return Check("sandbox", "warn", f"{why}: {then}", "install the package bubblewrap")


def round_trip(rtt: timedelta) -> Check:
    """How far away the broker is."""
    # The event loop's clock, which the bus measures with, has steps of a millisecond.
    found = (
        "below 1 ms" if rtt < timedelta(milliseconds=1) else f"{rtt.total_seconds() * 1000:.0f} ms"
    )
    if rtt > SLOW:
        fix = "run agents and coordinators close to the broker: a task takes several round trips"
        return Check("round trip", "warn", found, fix)
    return Check("round trip", "ok", found)


def payload(size: int) -> Check:
    """The largest message."""
    if size < MIN_PAYLOAD:
        fix = "set max_payload: 1MB in the server's configuration"
        return Check("max payload", "fail", f"{words.size(size)}, 1 MiB is needed", fix)
    return Check("max payload", "ok", words.size(size))


def jetstream(*, enabled: bool) -> Check:
    """Whether the broker keeps streams."""
    if enabled:
        return Check("jetstream", "ok", "enabled")
    return Check("jetstream", "fail", "not on this server", "enable JetStream: see nats.conf")


def sync(value: str, *, is_local: bool) -> Check:
    """When a write reaches the disk, and what a power loss can take."""
    if value == "always":
        return Check(
            "sync", "ok", "always: every append waits for the disk, a power loss takes nothing"
        )
    if value == "unknown":
        fix = "give the server's monitoring address: --monitoring http://HOST:8222"
        return Check("sync", "warn", "unknown: the monitoring page cannot be read", fix)
    found = (
        f"every {value}: an acknowledged entry survives the death of any process, "
        f"a power loss can take the last {value}"
    )
    if is_local:
        return Check("sync", "ok", f"{found} (fine for development)")
    fix = "sync_interval: always on a single server, or three replicas in separate failure domains"
    return Check("sync", "warn", found, fix)


def stream(name: str, existing: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> Check:
    """A stream against the settings that the protocol asks for. Sizes and replicas may differ."""
    label = f"stream {name}"
    if existing is None:
        return Check(label, "fail", "missing", "start a coordinator: it creates the streams")
    other: list[str] = []
    for field, value in wanted.items():
        # The API leaves out what is false.
        present = existing.get(field, False if isinstance(value, bool) else None)
        if field not in ("max_bytes", "num_replicas") and present != value:
            other.append(f"{field} is {present!r}, not {value!r}")
    if other:
        fix = "start a coordinator: it repairs what can be changed, and says what cannot"
        return Check(label, "fail", "; ".join(other), fix)
    return Check(label, "ok", "as it should be")


def coordinator(answer: timedelta, capabilities: int) -> Check:
    """Whether somebody routes tasks."""
    found = f"answered in {answer.total_seconds() * 1000:.1f} ms"
    return Check("coordinator", "ok", f"{found}, knows {capabilities} capabilities")


def agents(instances: int, draining: int) -> Check:
    """Whether somebody runs tasks."""
    if not instances:
        return Check(
            "agents", "warn", "none: tasks wait", "start one: `switchgear agent run MODULE:ATTR`"
        )
    return Check("agents", "ok", f"{instances} instances, {draining} draining")


def read_model(lag: int) -> Check:
    """Whether lists are answered, and how old they are."""
    if lag > LAG:
        fix = "wait while it catches up; if the lag grows, give `switchgear observe` a faster disk"
        return Check("read model", "warn", f"{lag} entries behind the ledger", fix)
    return Check("read model", "ok", f"{lag} entries behind the ledger")


def clock(skew: timedelta) -> Check:
    """This machine's clock against the broker's, which stamps the ledger. Positive: we are ahead."""
    seconds = skew.total_seconds()
    found = f"{abs(seconds) * 1000:.0f} ms {'ahead of' if seconds >= 0 else 'behind'} the broker"
    if abs(skew) > SKEW:
        return Check("clock", "warn", found, "synchronise both clocks (NTP)")
    return Check("clock", "ok", found)


def disk(free: int, total: int, path: str) -> Check:
    """Room for the store, where it is on this machine."""
    found = f"{words.size(free)} of {words.size(total)} free at {path}"
    if free < LOW_DISK:
        return Check("disk", "warn", found, "free some space: a full store takes no submissions")
    return Check("disk", "ok", found)


def processes(restarts: Mapping[str, int], logs: str) -> Check:
    """The processes of a local `switchgear dev`."""
    again = [f"{name} ({count})" for name, count in restarts.items() if count]
    if again:
        return Check(
            "processes", "warn", f"restarted: {', '.join(again)}", f"read the logs in {logs}"
        )
    return Check("processes", "ok", f"running: {', '.join(restarts)}")
