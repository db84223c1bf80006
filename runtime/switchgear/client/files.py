"""Files to and from the object store, for clients: artifacts that tasks take and give."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from switchgear import ids
from switchgear.contract import limits
from switchgear.errors import ProtocolError, UsageError
from switchgear.steps import packing

if TYPE_CHECKING:
    from switchgear.bus.port import Blobs
    from switchgear.contract.artifact import Artifact


async def upload(blobs: Blobs, path: str | os.PathLike[str]) -> Artifact:
    """Store a file or directory. Raises UsageError for what cannot be stored, Unavailable."""
    try:
        packed = await asyncio.to_thread(packing.pack, Path(path))
    except packing.Unpackable as error:
        raise UsageError(
            f"{os.fspath(path)} cannot be uploaded",
            why=str(error),
            fix=f"name a file or directory of at most {limits.MAX_BLOB} bytes",
        ) from error
    await blobs.put(packed.data)
    return packed.artifact


async def download(blobs: Blobs, artifact: Artifact, path: str | os.PathLike[str]) -> Path:
    """Write an artifact's file or directory to a path where nothing is yet; returns it.

    Raises UsageError where something is there, NotFound, ProtocolError SG1109 for other bytes than the digest says,
    Unavailable.
    """
    target = Path(path)
    data = await blobs.get(artifact.digest)
    if ids.digest(data) != artifact.digest:
        raise ProtocolError(f"artifact {artifact.digest} has other content", code="SG1109")
    try:
        await asyncio.to_thread(packing.unpack, artifact, data, target)
    except packing.Unpackable as error:
        raise UsageError(
            f"the artifact cannot be written to {target}",
            why=str(error),
            fix="name a path in a directory that exists, where nothing is yet",
        ) from error
    return target
