"""Files that travel: named by their content, stored in the object store, referred to by value."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from switchgear.contract import limits
from switchgear.contract.values import Digest

TAR = "application/x-tar"
"""Media type of a directory: its files as a tar archive."""
BYTES = "application/octet-stream"


class Artifact(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="artifact"):
    """A file or a directory. Small: hand it on in inputs and outputs; the bytes stay in the object store."""

    digest: Digest
    """SHA-256 of the bytes."""
    size: Annotated[int, Meta(ge=0, le=limits.MAX_BLOB)]
    """Bytes; of a directory, those of its archive."""
    name: Annotated[str, Meta(max_length=255)] = ""
    """What it was called where it was made; never used as a path."""
    media_type: Annotated[str, Meta(max_length=127)] = BYTES
    directory: bool = False
    """Whether the bytes are a tar archive of a directory's files."""
