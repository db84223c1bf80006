"""Inputs and outputs: inline up to the limit, above it as blobs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from switchgear.contract import limits
from switchgear.errors import NotFound, UsageError
from switchgear.tasks import payload
from switchgear.testing.memory import MemoryBroker, MemoryBus


@dataclass
class Value:
    text: str


async def test_payload_is_inline_up_to_the_limit() -> None:
    """One byte more and it is a blob, named by its content; both read back as they were."""
    bus = MemoryBus(MemoryBroker(), "b")
    for size, is_blob in ((limits.MAX_INLINE, False), (limits.MAX_INLINE + 1, True)):
        data = b'"' + b"x" * (size - 2) + b'"'
        stored = await payload.store(bus.blobs, data)
        assert (stored.blob is not None) is is_blob
        assert await payload.load(bus.blobs, stored.inline, stored.blob) == data
        if stored.blob is not None:
            assert stored.blob.size == size
            assert bytes(stored.inline) == b"null"


async def test_missing_blob_is_not_found() -> None:
    """Deleted by retention, or never stored."""
    bus = MemoryBus(MemoryBroker(), "b")
    stored = await payload.store(bus.blobs, b'"%s"' % (b"x" * limits.MAX_INLINE))
    other = MemoryBus(MemoryBroker(), "c")
    with pytest.raises(NotFound):
        await payload.load(other.blobs, stored.inline, stored.blob)


@pytest.mark.parametrize("value", [object(), {1, object()}, float, lambda: 1])
def test_value_that_is_no_json_names_what_it_is(value: object) -> None:
    """The error says which value, and what to use."""
    with pytest.raises(UsageError, match="the input of echo"):
        payload.encode_value(value, "the input of echo")
    assert payload.encode_value(Value("x"), "it") == b'{"text":"x"}'
