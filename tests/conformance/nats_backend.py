"""The real bus for the conformance suite, and a client raw enough to send any header block."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from switchgear.bus.connection import Options, connect
from switchgear.bus.port import Appended, Bus, Refused
from switchgear.bus.streams import StreamSettings
from tests.conformance.support import RawError
from tests.patience import PATIENCE

WRONG_LAST_SEQUENCE = 10071
LEDGER_BYTES = 64 * 1024 * 1024
"""Enough for the suite."""


class NatsBackend:
    """A nats-server, reached through the runtime's own bus."""

    def __init__(self, url: str, ledger_bytes: int = LEDGER_BYTES) -> None:
        """`ledger_bytes`: the room that the ledger gets where it is not there yet."""
        self._url = url
        self._ledger_bytes = ledger_bytes

    async def bus(self, name: str, *, lane_ack_wait: timedelta, intake_ack_wait: timedelta) -> Bus:
        """A new connection."""
        options = Options(
            lane_ack_wait=lane_ack_wait,
            intake_ack_wait=intake_ack_wait,
            streams=StreamSettings(ledger_bytes=self._ledger_bytes),
        )
        return await connect(self._url, name=name, options=options)

    async def raw(self, subject: str, headers: bytes, data: bytes) -> Appended | Refused:
        """Store over a bare socket: no client library has a say in the headers."""
        answer = json.loads(await raw_request(self._url, subject, headers, data))
        error = answer.get("error")
        if error is None:
            return Appended(answer["seq"])
        if error["err_code"] != WRONG_LAST_SEQUENCE:
            raise RawError(error["err_code"])
        return Refused(int(error["description"].rpartition(" ")[2]))


async def raw_request(url: str, subject: str, headers: bytes, data: bytes) -> bytes:
    """Send one request with this header block as it is; returns the answer's payload."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.readline()
            options: dict[str, Any] = {"verbose": False, "headers": True, "no_responders": True}
            writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nSUB _RAW 1\r\n")
            if headers:
                sizes = f"{len(headers)} {len(headers) + len(data)}"
                writer.write(f"HPUB {subject} _RAW {sizes}\r\n".encode() + headers + data + b"\r\n")
            else:
                writer.write(f"PUB {subject} _RAW {len(data)}\r\n".encode() + data + b"\r\n")
            while not (line := await reader.readline()).startswith((b"MSG ", b"HMSG ")):
                if line.startswith(b"-ERR") or not line:
                    raise RawError(line)
            return (await reader.readexactly(int(line.split()[-1]) + 2))[:-2]
    finally:
        writer.close()
        await writer.wait_closed()
