"""Where the mesh is and who we are: environment over saved context over a local mesh over default."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from switchgear.contract import subjects
from switchgear.errors import ConfigError, NotFound

DEFAULT_URL = "nats://127.0.0.1:4222"
DEFAULT_PRINCIPAL = "local"


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a process needs to join a mesh. A saved context is one of these as JSON."""

    url: str = DEFAULT_URL
    """Of the broker; several, separated by commas."""
    principal: str = DEFAULT_PRINCIPAL
    """Who acts: the owner of what this process submits."""
    context: str = ""
    """Name of the saved context that these came from; empty for none."""

    @classmethod
    def load(cls, *, url: str | None = None, context: str | None = None) -> Settings:
        """Arguments over SWITCHGEAR_URL and SWITCHGEAR_PRINCIPAL over the context over the defaults.

        Before the default URL comes a mesh that `switchgear dev` runs in this folder or one above.

        Raises NotFound for a context that was never saved, ConfigError for values that cannot be used.
        """
        name = context or os.environ.get("SWITCHGEAR_CONTEXT") or selected()
        saved = read(name) if name else cls(url="")
        found = cls(
            url=url
            or (None if context else os.environ.get("SWITCHGEAR_URL"))
            or saved.url
            or local()
            or DEFAULT_URL,
            principal=os.environ.get("SWITCHGEAR_PRINCIPAL") or saved.principal,
            context=name,
        )
        if not subjects.is_token(found.principal):
            raise ConfigError(
                f"principal {found.principal!r} cannot be used",
                why="it becomes part of subjects",
                fix="set SWITCHGEAR_PRINCIPAL to letters, digits, - and _",
            )
        return found


def local() -> str:
    """URL of the mesh that `switchgear dev` runs in this folder or the nearest above; empty for none."""
    try:
        from switchgear import discovery
    except ImportError:  # no file locks: `switchgear dev` does not run here either
        return ""
    running = discovery.find()
    return running.url if running is not None else ""


def directory() -> Path:
    """Where contexts are kept: `$XDG_CONFIG_HOME/switchgear`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "switchgear"


def selected() -> str:
    """The context in use; empty for none."""
    marker = directory() / "context"
    return marker.read_text(encoding="utf-8").strip() if marker.is_file() else ""


def names() -> list[str]:
    """All saved contexts."""
    return sorted(path.stem for path in (directory() / "contexts").glob("*.json"))


def read(name: str) -> Settings:
    """A saved context. Raises NotFound, ConfigError."""
    path = _path(name)
    if not path.is_file():
        raise NotFound(f"no context {name!r}", fix="`switchgear context ls` lists the saved ones")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"context {name!r} cannot be read", why=str(error)) from error


def save(name: str, settings: Settings) -> Path:
    """Write a context, for this user only. Returns its file."""
    path = _path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(settings)))
    return path


def select(name: str) -> None:
    """Use this context from now on. Raises NotFound."""
    read(name)
    (directory() / "context").write_text(f"{name}\n", encoding="utf-8")


def _path(name: str) -> Path:
    if not subjects.is_token(name):
        raise ConfigError(f"{name!r} cannot name a context", fix="use letters, digits, - and _")
    return directory() / "contexts" / f"{name}.json"
