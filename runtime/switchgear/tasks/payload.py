"""Inputs and outputs: inline up to the limit, above it as a blob named by its content."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from switchgear.bus.port import Blobs
from switchgear.contract import codec, limits
from switchgear.contract.values import Blob
from switchgear.errors import UsageError

NULL = msgspec.Raw(b"null")


class Payload(NamedTuple):
    """What stands in an entry: the JSON itself, or a reference to it."""

    inline: msgspec.Raw
    blob: Blob | None = None


def encode_value(value: Any, what: str) -> bytes:
    """The value as JSON. Raises UsageError naming `what`."""
    try:
        return codec.canonical(
            value
        )  # the same value gives the same bytes in every process: keys rely on it
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"{what} cannot be written as JSON",
            why=str(error),
            fix="use dataclasses, msgspec structs or plain data",
        ) from error


async def store(blobs: Blobs, data: bytes) -> Payload:
    """The payload for this JSON; a large one is stored first."""
    if len(data) <= limits.MAX_INLINE:
        return Payload(msgspec.Raw(data))
    if len(data) > limits.MAX_BLOB:
        raise UsageError(
            f"a payload of {len(data)} bytes", why=f"{limits.MAX_BLOB} bytes are the limit"
        )
    names = tuple(dict.fromkeys(found.decode() for found in _ARTIFACT.findall(data)))
    if len(names) > limits.MAX_NAMED:
        raise UsageError(
            f"a payload that names {len(names)} artifacts",
            why=f"{limits.MAX_NAMED} are the limit",
            fix="put files into one directory, and make that the artifact",
        )
    return Payload(NULL, Blob(digest=await blobs.put(data), size=len(data), names=names))


_ARTIFACT = re.compile(rb'\{"type":"artifact","digest":"([0-9a-f]{64})"')
"""An artifact as our encoder writes it."""


async def load(blobs: Blobs, inline: msgspec.Raw, blob: Blob | None) -> bytes:
    """The JSON that an entry carries or names. Raises NotFound and ProtocolError SG1109."""
    return bytes(inline) if blob is None else await blobs.get(blob.digest)
