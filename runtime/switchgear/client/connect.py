"""`connect()`: the way in, for async code and for scripts."""

from __future__ import annotations

import asyncio

from switchgear.bus import connection
from switchgear.client.loop_thread import LoopThread
from switchgear.client.mesh import Mesh
from switchgear.client.sync import SyncMesh
from switchgear.settings import Settings


class Connection:
    """Not connected yet: `async with` gives a Mesh, `with` a SyncMesh."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mesh: Mesh | None = None
        self._thread: LoopThread | None = None

    async def __aenter__(self) -> Mesh:
        """Connect. Raises Unavailable, ServerUnfit, ClearTextRefused."""
        self._mesh = await self._connected()
        return self._mesh

    async def __aexit__(self, *exc: object) -> None:
        """Leave; tasks go on."""
        if self._mesh is not None:
            await asyncio.shield(self._mesh.close())

    def __enter__(self) -> SyncMesh:
        """Connect, on an event loop in a thread of its own. Raises as the asynchronous way does."""
        self._thread = LoopThread()
        try:
            self._mesh = self._thread.call(self._connected())
        except BaseException:
            self._thread.stop()
            raise
        return SyncMesh(self._thread, self._mesh)

    def __exit__(self, *exc: object) -> None:
        """Leave; tasks go on."""
        assert self._thread is not None
        assert self._mesh is not None
        try:
            self._thread.call(self._mesh.close())
        finally:
            self._thread.stop()

    async def _connected(self) -> Mesh:
        principal = self._settings.principal
        bus = await connection.connect(self._settings.url, name=principal, principal=principal)
        mesh = Mesh(bus, principal)
        try:
            await mesh.start()
        except BaseException:
            await bus.close()
            raise
        return mesh


def connect(url: str | None = None, *, context: str | None = None) -> Connection:
    """Join a mesh as a client: `url`, else SWITCHGEAR_URL, the context's, or the local default.

    Raises NotFound for a context that was never saved, ConfigError for settings that cannot be used.
    """
    return Connection(Settings.load(url=url, context=context))
