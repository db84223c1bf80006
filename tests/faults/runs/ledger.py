"""The whole ledger, message by message, by a connection that knows nothing of the SDK."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.errors import Error

from switchgear.contract.stored import Stored
from tests.integration.spine.rawwriter import LEDGER, connected

AT_ONCE = 64
"""Messages asked for together."""
PATIENCE = 3.0


class LedgerReader:
    """What the stream has; `read` asks only for what is new."""

    def __init__(self, url: str) -> None:
        """`url` is the server's own: no fault lies between."""
        self._url = url
        self._reading = asyncio.Lock()
        self.entries: list[Stored] = []
        self.last = 0
        """The stream's last sequence when it was read."""
        self.rolled_back = 0
        """How often the stream's last sequence fell back."""

    async def read(self) -> bool:
        """Take in what is new. False where the server cannot be asked now."""
        async with self._reading:
            try:
                client = await connected(self._url)
            except (OSError, Error, TimeoutError):
                return False
            try:
                return await self._read(client)
            except (OSError, Error, TimeoutError):
                return False
            finally:
                await client.close()

    async def _read(self, client: Client) -> bool:
        info = await _ask(client, f"$JS.API.STREAM.INFO.{LEDGER}", {})
        if "error" in info:
            return False
        last = int(info["state"]["last_seq"])
        if last < self.last:
            self.rolled_back += 1
            self.entries.clear()
            self.last = 0
        for start in range(self.last + 1, last + 1, AT_ONCE):
            sequences = range(start, min(start + AT_ONCE, last + 1))
            found = await asyncio.gather(*(_message(client, one) for one in sequences))
            self.entries.extend(one for one in found if one is not None)
            self.last = sequences[-1]
        return True

    def dump(self, file: Path) -> None:
        """Write all entries, one a line."""
        with file.open("w", encoding="utf-8") as out:
            for one in self.entries:
                out.write(json.dumps(_shown(one), ensure_ascii=False) + "\n")


async def _ask(client: Client, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.request(subject, json.dumps(body).encode(), timeout=PATIENCE)
    return json.loads(answer.data)


async def _message(client: Client, sequence: int) -> Stored | None:
    answer = await _ask(client, f"$JS.API.STREAM.MSG.GET.{LEDGER}", {"seq": sequence})
    if "error" in answer:
        if answer["error"].get("code") != 404:  # it was deleted
            raise Error(str(answer["error"]))
        return None
    found = answer["message"]
    return Stored(
        found["subject"],
        int(found["seq"]),
        int(datetime.fromisoformat(found["time"]).timestamp() * 1_000_000) * 1000,
        base64.b64decode(found.get("hdrs") or ""),
        base64.b64decode(found.get("data") or ""),
    )


def _shown(one: Stored) -> dict[str, Any]:
    try:
        data = json.loads(one.data)
    except ValueError:
        data = one.data.decode("utf-8", "replace")
    return {
        "sequence": one.sequence,
        "time": one.time.isoformat(),
        "subject": one.subject,
        "headers": one.headers.decode("utf-8", "replace"),
        "data": data,
    }
