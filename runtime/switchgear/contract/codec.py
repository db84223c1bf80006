"""Bytes to messages and back, strictly: whatever is wrong with them becomes one coded ProtocolError.

msgspec raises UnicodeDecodeError for bad UTF-8 and RecursionError for deep nesting, neither of them a
MsgspecError, and lets bad UTF-8 pass inside `Raw`: all are caught here, and nowhere else.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from switchgear.contract import limits
from switchgear.contract.entries import ENTRIES, Entry
from switchgear.contract.subjects import TaskSubject
from switchgear.errors import ProtocolError

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_ENTRY_DECODERS = {event: msgspec.json.Decoder(kind) for event, kind in ENTRIES.items()}

encode = _encoder.encode
"""Any message as compact JSON bytes."""

canonical = msgspec.json.Encoder(order="deterministic").encode
"""The same with dicts and sets in one order, for digests: a set's own order changes with the process."""


class _Head(msgspec.Struct):
    v: int = 1


_HEAD = msgspec.json.Decoder(_Head)


def decode(data: bytes, kind: type[T], *, limit: int = limits.MAX_QUERY) -> T:
    """A message of this type. Raises ProtocolError SG1101 to SG1106."""
    return _decode(data, decoder(kind), limit)


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of a type, made once; one that cannot be a key is made each time."""
    try:
        found = _decoders.get(kind)
    except TypeError:
        return msgspec.json.Decoder(kind)
    if found is None:
        found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found


def decode_entry(subject: TaskSubject, data: bytes) -> Entry:
    """The entry that stands under this subject. Raises ProtocolError SG1101 to SG1108."""
    entry: Entry = _decode(data, _ENTRY_DECODERS[subject.event], limits.MAX_ENTRY)
    if entry.task != subject.task:
        raise ProtocolError(
            f"an entry of task {entry.task!r} stands under task {subject.task!r}", code="SG1108"
        )
    return entry


def _decode(data: bytes, decoder: msgspec.json.Decoder[T], limit: int) -> T:
    if len(data) > limit:
        raise ProtocolError(
            f"a message of {len(data)} bytes",
            code="SG1103",
            why=f"its kind is limited to {limit} bytes",
            fix="put large payloads into the object store and send their digest",
        )
    try:
        str(data, "utf-8")
        return decoder.decode(data)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"not UTF-8 at byte {error.start}", code="SG1104") from None
    except RecursionError:
        raise ProtocolError("nested too deeply", code="SG1106") from None
    except msgspec.ValidationError as error:
        raise _invalid(data, error) from None
    except msgspec.DecodeError as error:
        raise ProtocolError(f"not JSON: {error}", code="SG1105") from None


def _invalid(data: bytes, error: msgspec.ValidationError) -> ProtocolError:
    """Tells an unknown version from a bad field, so that an old reader says what it lacks."""
    try:
        version = _HEAD.decode(data).v
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        version = 1
    if version != 1:
        return ProtocolError(
            f"protocol version {version}",
            code="SG1101",
            why="this release knows version 1",
            fix="upgrade this process",
        )
    return ProtocolError(str(error), code="SG1102")
