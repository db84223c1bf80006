"""How steps are run on this host: isolation, image aliases, places. Read once, handed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast, get_args

from msgspec import Struct

from switchgear.errors import ConfigError, UsageError
from switchgear.steps import images

IsolationWanted = Literal["required", "preferred", "none"]


class StepSettings(Struct, frozen=True, kw_only=True):
    """Defaults suit services."""

    isolation: IsolationWanted = "required"
    """`required`: a step that cannot be isolated is refused; `preferred`: it runs plain then, and says so; `none`:
    every process step runs plain."""
    image_aliases: tuple[tuple[str, str], ...] = ()
    """What an image is redirected to, by its whole reference or by `prefix*`."""
    shown: tuple[str, ...] = ()
    """Directories of the host that every sandbox of the process executor shows, read-only."""
    engine_image: str = ""
    """The image for steps that name none, on an engine; empty: they run as processes."""
    caches: str = ""
    """Directory of the process executor's caches; empty: below the user's cache directory."""

    @property
    def aliases(self) -> dict[str, str]:
        """`image_aliases` as a map."""
        return dict(self.image_aliases)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> StepSettings:
        """From SWITCHGEAR_ISOLATION, _IMAGE_ALIASES, _SANDBOX_PATHS, _ENGINE_IMAGE and others. Raises ConfigError."""
        isolation = environ.get("SWITCHGEAR_ISOLATION") or "required"
        if isolation not in get_args(IsolationWanted):
            raise ConfigError(
                f"SWITCHGEAR_ISOLATION={isolation!r} cannot be used",
                fix="set it to required, preferred or none",
            )
        return cls(
            isolation=cast("IsolationWanted", isolation),
            image_aliases=_aliases(environ.get("SWITCHGEAR_IMAGE_ALIASES", "")),
            shown=_paths(environ.get("SWITCHGEAR_SANDBOX_PATHS", "")),
            engine_image=_image(environ.get("SWITCHGEAR_ENGINE_IMAGE", "")),
            caches=environ.get("XDG_CACHE_HOME", ""),
        )


def _paths(text: str) -> tuple[str, ...]:
    paths = tuple(part for part in text.split(os.pathsep) if part)
    for path in paths:
        if not path.startswith("/") or path == "/":
            raise ConfigError(
                f"{path!r} in SWITCHGEAR_SANDBOX_PATHS cannot be shown",
                fix="name absolute directories, separated by colons",
            )
    return paths


def _image(text: str) -> str:
    try:
        if text:
            images.parse(text)
    except UsageError as error:
        raise ConfigError(
            f"SWITCHGEAR_ENGINE_IMAGE={text!r} cannot be used", why=error.what, fix=error.fix
        ) from error
    return text


def _aliases(text: str) -> tuple[tuple[str, str], ...]:
    """`name=image,…`, or `@FILE` with one `name=image` a line. An image that holds a comma needs the file."""
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"SWITCHGEAR_IMAGE_ALIASES={text} cannot be read", why=str(error)
            ) from error
        parts = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    else:
        parts = [part for part in text.split(",") if part.strip()]
    pairs: dict[str, str] = {}
    for part in parts:
        name, equals, image = part.partition("=")
        if not equals or not name.strip() or not image.strip():
            raise ConfigError(
                f"{part.strip()!r} in SWITCHGEAR_IMAGE_ALIASES is no alias",
                fix="write name=image, such as python:3.12-slim=oci:/images/python.tar",
            )
        pairs[name.strip()] = image.strip()
    return tuple(sorted(pairs.items()))
