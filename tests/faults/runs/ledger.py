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
PATIENCE = 5.0
"""Seconds for one answer of the server; whoever asks looks again later."""


class LedgerReader:
    """What the stream has; `read` asks only for what is new, or was not there."""

    def __init__(self, url: str) -> None:
        """`url` is the server's own: no fault lies between."""
        self._url = url
        self._reading = asyncio.Lock()
        self._found: dict[int, Stored] = {}
        self.last = 0
        """The stream's last sequence when it was read."""
        self.rolled_back = 0
        """How often something that had been read was gone, or was something else."""

    @property
    def entries(self) -> list[Stored]:
        """Those that were there when they were read, in ledger order."""
        return [self._found[sequence] for sequence in sorted(self._found)]

    async def read(self, *, anew: bool = False) -> bool:
        """Take in what is new; `anew`: everything. False where the server cannot be asked now."""
        async with self._reading:
            try:
                client = await connected(self._url)
            except (OSError, Error, TimeoutError):
                return False
            try:
                return await self._read(client, anew=anew)
            except (OSError, Error, TimeoutError):
                return False
            finally:
                await client.close()

    async def _read(self, client: Client, *, anew: bool) -> bool:
        info = await _ask(client, f"$JS.API.STREAM.INFO.{LEDGER}", {})
        if "error" in info:
            return False
        last = int(info["state"]["last_seq"])
        before = self._found
        known: dict[int, Stored] = {}
        if not anew and await self._stands(client, last):
            known = dict(before)
        wanted = [one for one in range(1, last + 1) if one not in known]
        for start in range(0, len(wanted), AT_ONCE):
            asked = wanted[start : start + AT_ONCE]
            found = await asyncio.gather(*(_message(client, one) for one in asked))
            known |= {one.sequence: one for one in found if one is not None}
        # what a full disk could not take may be read for a while, and its sequence be another's afterwards
        self.rolled_back += any(known.get(sequence) != one for sequence, one in before.items())
        self._found, self.last = known, last
        return True

    async def _stands(self, client: Client, last: int) -> bool:
        """Whether the newest of what was read is what it was."""
        newest = max(self._found, default=0)
        if not newest:
            return True
        return newest <= last and await _message(client, newest) == self._found[newest]

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
