"""What an image may be: a registry reference, an OCI archive, a root filesystem; and what settings redirect it to.

Pure. A spec keeps what its author wrote; executors resolve it when they run it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from switchgear.errors import UsageError

DEFAULT_REGISTRY = "docker.io"

_REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._:/-]*?[A-Za-z0-9])?)(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class Image(Struct, frozen=True, kw_only=True):
    """An image, told apart."""

    kind: Literal["registry", "oci", "rootfs"]
    text: str
    """The reference, or the path on the agent's host."""
    host: str = ""
    """Of a registry reference: the registry, such as `docker.io` or `registry.example:5000`."""
    digest: str = ""
    """Of a registry reference that is pinned: `sha256:…`; only that always names the same content."""


def parse(text: str) -> Image:
    """The image that this names. Raises UsageError."""
    kind, _, path = text.partition(":")
    if kind in {"oci", "rootfs"}:
        if not path or "\0" in path:
            raise UsageError(f"{text!r} names no file", fix=f"write {kind}:/path/of/it")
        return Image(kind="oci" if kind == "oci" else "rootfs", text=path)
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} is no image",
            fix="use a registry reference such as python:3.12-slim, oci:PATH or rootfs:PATH",
        )
    first, slash, _ = found["name"].partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return Image(
        kind="registry",
        text=text,
        host=first if named else DEFAULT_REGISTRY,
        digest=found["digest"] or "",
    )


def resolve(text: str, aliases: Mapping[str, str]) -> Image:
    """The image after the alias map: whole references first, then the longest `prefix*`. Raises UsageError."""
    if text in aliases:
        return parse(aliases[text])
    prefixes = [one[:-1] for one in aliases if one.endswith("*") and text.startswith(one[:-1])]
    if not prefixes:
        return parse(text)
    longest = max(prefixes, key=len)
    target = aliases[f"{longest}*"]
    return parse(target[:-1] + text[len(longest) :] if target.endswith("*") else target)
