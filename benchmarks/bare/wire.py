"""Subjects and bodies of the three entries: real structs, padded to about the product's size."""

import msgspec

STREAM = "SG_LEDGER"
SUBMITTED = b"submitted"
DISPATCHED = b"dispatched.pool.normal"
COMPLETED = b"completed"
CHECKPOINT = b"checkpoint"
INPUT = "i" * 200
"""What a task carries and the agent echoes: 200 bytes."""


class Entry(msgspec.Struct, kw_only=True):
    """What every entry says; `input` is the agent's output in `completed`."""

    task: str
    entry: str
    """The entry's own id."""
    writer: str
    time: int
    """Writer's clock, nanoseconds since 1970."""
    prev: int
    """Stream sequence of the entry that it builds on, 0 for none."""
    attempt: int
    trace: str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    input: str
    pad: str = ""
    """Stands for the fields that the product has and this program does not need."""


class PubAck(msgspec.Struct):
    """The broker's answer to an append, or to a question about a stream."""

    seq: int = 0
    error: dict[str, str | int] | None = None


class Sizes(msgspec.Struct, frozen=True):
    """Encoded body sizes in bytes, met within the width of a sequence number."""

    submitted: int = 500
    dispatched: int = 800
    completed: int = 550
    checkpoint: int = 500


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Entry).decode
decode_ack = msgspec.json.Decoder(PubAck).decode


def padding(size: int) -> str:
    """Return the filler that brings an entry to `size` bytes."""
    now = 1_700_000_000_000_000_000
    entry = Entry(
        task="t" * 32, entry="e" * 34, writer="w", time=now, prev=10**5, attempt=1, input=INPUT
    )
    return "x" * max(0, size - len(encode(entry)))
