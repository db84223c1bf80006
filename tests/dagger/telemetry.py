"""What executions write, as a real engine keeps it for each session, and sends it to whoever asks for `/v1/logs`."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections import defaultdict
from contextlib import suppress
from typing import Any

BATCH = 1000
HEAD = b"HTTP/1.0 200 OK\r\nCache-Control: no-cache\r\nContent-Type: text/event-stream\r\n\r\n"
SUBSCRIBED = b"id: \nevent: subscribed\ndata\n\n"


class Logs:
    """Records by session, in the order of their numbers; a record that is not UTF-8 is dropped."""

    def __init__(self) -> None:
        self.dead = ""
        """`refused`: nobody gets any; `mute`: no request is answered; `garbage`: events cannot be read."""
        self.asked = 0
        self._records: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._news = asyncio.Event()
        self._readers: set[asyncio.StreamWriter] = set()

    def write(self, session: str, span: str, stream: int, data: bytes) -> None:
        """One write of an execution, as it was read from its pipe."""
        with suppress(UnicodeDecodeError):
            self._records[session].append(
                {
                    "timeUnixNano": "1795988159853199839",
                    "body": {"stringValue": data.decode()},
                    "attributes": [
                        {"key": "stdio.stream", "value": {"intValue": str(stream)}},
                        *([] if data else [{"key": "stdio.eof", "value": {"boolValue": True}}]),
                    ],
                    "traceId": base64.b64encode(bytes(16)).decode(),
                    "spanId": base64.b64encode(bytes.fromhex(span)).decode(),
                }
            )
            self._news.set()
            self._news = asyncio.Event()

    def cut(self) -> None:
        """Break the connections of all that read now, where their bytes have gone."""
        for writer in self._readers:
            writer.close()

    async def serve(
        self, session: str, since: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one request, until whoever asked goes away."""
        self.asked += 1
        if self.dead == "refused":
            writer.write(
                b"HTTP/1.0 404 Not Found\r\nContent-Length: 19\r\n\r\n404 page not found\n"
            )
            return
        gone = asyncio.ensure_future(reader.read())
        if self.dead == "mute":
            await gone
            return
        writer.write(HEAD + SUBSCRIBED)
        self._readers.add(writer)
        try:
            while not gone.done() and not writer.is_closing():
                news = asyncio.ensure_future(self._news.wait())
                since = await self._send(session, since, writer)
                await asyncio.wait({gone, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            gone.cancel()
            self._readers.discard(writer)

    async def _send(self, session: str, since: int, writer: asyncio.StreamWriter) -> int:
        """Send what is newer than that number; returns the newest."""
        while records := self._records[session][since : since + BATCH]:
            since += len(records)
            scope = {"scope": {"name": "dagger.io/engine.buildkit"}, "logRecords": records}
            event = json.dumps({"resourceLogs": [{"resource": {}, "scopeLogs": [scope]}]})
            data = os.urandom(20).hex() if self.dead == "garbage" else event
            writer.write(f"id: {since}\nevent: logs\ndata: {data}\n\n".encode())
            await writer.drain()
        return since
