"""Stands in for the CLI: asks the engine at its runner host for a session, serves it on a port, ends with its stdin.

Behaves as the real one where it hurts: an engine that cannot be reached is tried for ten minutes, and meanwhile neither
SIGTERM nor a closed stdin ends it; when the engine is gone it lives on and answers 502. FAKE_CLI chooses other ways.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from urllib.parse import urlsplit

BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Cli:
    def __init__(self) -> None:
        runner = urlsplit(os.environ["_EXPERIMENTAL_DAGGER_RUNNER_HOST"])
        self.address = (runner.hostname, runner.port)
        self.gone = False

    async def session(self) -> tuple[asyncio.StreamReader, str]:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(*self.address)
                writer.write(b"SESSION\n")
                if line := await reader.readline():
                    self.writer = writer
                    return reader, line.decode().strip()
            await asyncio.sleep(0.5)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.gone:
                raise ConnectionError
            upstream = await asyncio.open_connection(*self.address)
        except OSError:
            await reader.read(65536)
            writer.write(BAD_GATEWAY)
            writer.close()
            return
        answered = False

        async def down() -> None:
            nonlocal answered
            while data := await upstream[0].read(65536):
                answered = True
                writer.write(data)
                await writer.drain()

        async def up() -> None:
            nonlocal answered
            while data := await reader.read(65536):
                answered = False
                upstream[1].write(data)

        tasks = [asyncio.ensure_future(down()), asyncio.ensure_future(up())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.gone and not answered:
            writer.write(BAD_GATEWAY)
        for one in (upstream[1], writer):
            one.close()

    async def run(self) -> None:
        control, token = await self.session()
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"port": port, "session_token": token}), flush=True)  # noqa: T201
        stdin = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)

        async def watch() -> None:
            await control.read()
            self.gone = True

        watching = asyncio.ensure_future(watch())
        await stdin
        watching.cancel()
        self.writer.close()


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    how = os.environ.get("FAKE_CLI", "")
    if record := os.environ.get("FAKE_CLI_ENVIRONMENT"):
        with open(record, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(dict(os.environ), file)
    if record := os.environ.get("FAKE_CLI_PID"):
        with open(record, "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(str(os.getpid()))
    if how == "never":
        signal.pause()
    if how == "garbage":
        print("what?", flush=True)  # noqa: T201
        signal.pause()
    if how.startswith("says:"):
        print("x" * 100_000, file=sys.stderr)  # noqa: T201
        print(how.removeprefix("says:"), file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(1)
    if "DAGGER_SESSION_PORT" in os.environ:
        sys.exit("nested session")
    asyncio.run(Cli().run())
    if how == "lingers":
        signal.pause()
    os._exit(int(os.environ.get("FAKE_CLI_EXIT", "0")))


if __name__ == "__main__":
    main()
