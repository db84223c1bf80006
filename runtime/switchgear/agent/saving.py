"""Artifacts of a handler: bytes and files that outlive it, recorded by key."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from switchgear import ids
from switchgear.contract import codec, limits
from switchgear.contract.artifact import BYTES, Artifact
from switchgear.errors import UsageError
from switchgear.tasks import payload

if TYPE_CHECKING:
    from switchgear.agent.run import Run


async def save(
    run: Run, key: str, data: bytes | Path, *, name: str = "", media_type: str = BYTES
) -> Artifact:
    """Store what is given, or return what an earlier run recorded of it."""
    from switchgear.steps import packing

    # Of a path the name alone: the files may be gone, or be another host's, when the handler runs again.
    digest = ids.digest(str(data).encode() if isinstance(data, Path) else data)
    found = run.recording.find(key, "save", digest)
    if found is not None:
        return await run.recording.value(found, Artifact)
    await run.begin()
    with run.waits.working():
        try:
            if isinstance(data, Path):
                packed = await asyncio.to_thread(packing.pack, data, name)
            else:
                packed = packing.packed(data, name, media_type=media_type)
        except packing.Unpackable as error:
            raise UsageError(f"{data} cannot be saved as {key!r}", why=str(error)) from error
        if packed.artifact.size > limits.MAX_BLOB:
            raise UsageError(
                f"{packed.artifact.size} bytes cannot be saved as {key!r}",
                why=f"{limits.MAX_BLOB} bytes are the limit",
            )
        blobs = run.attempt.bus.blobs
        await blobs.put(packed.data)
        stored = await payload.store(blobs, codec.encode(packed.artifact))
        await run.recording.done(key, "save", digest, stored)
        return packed.artifact


async def load(run: Run, artifact: Artifact) -> bytes:
    """The artifact's bytes, verified."""
    return await run.attempt.bus.blobs.get(artifact.digest)
